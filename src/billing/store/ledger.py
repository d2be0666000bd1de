"""The ledger: accounts, transactions, entries."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.errors import ResourceNotFound
from billing.domain.ledger import (
    LedgerAccountKind,
    LedgerEntry,
    LedgerEntryStatus,
    LedgerEntryType,
    LedgerSourceType,
    LedgerTransaction,
    TrialBalanceLine,
)
from billing.domain.pages import Page, PageRequest
from billing.domain.scope import Scope
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query, page_of, to_page

_entries = tables.ledger_entries
_transactions = tables.ledger_transactions
_debit_accounts = tables.ledger_accounts.alias("debit_accounts")
_credit_accounts = tables.ledger_accounts.alias("credit_accounts")

_INSERT_ENTRIES = load_query("insert_ledger_entries")
_TRIAL_BALANCE = load_query("trial_balance")
_BALANCE_NOW = load_query("balance_now")
_BALANCE_AS_OF = load_query("balance_as_of")
_ROWS_PER_STATEMENT: Final = 1_000
_INSERT_TRANSACTIONS: Final = """
INSERT INTO ledger_transactions (
    tenant_id, livemode, created_at, initiating_source_type, initiating_source_id,
    id, subscription_id, description
)
SELECT $1, $2, $3, $4, $5, u.* FROM unnest($6::uuid[], $7::uuid[], $8::text[]) AS u
"""
_INSERT_ACCOUNT: Final = """
INSERT INTO ledger_accounts (tenant_id, livemode, id, kind, currency, subscription_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT DO NOTHING
"""
_FIND_TENANT_ACCOUNT: Final = """
SELECT id FROM ledger_accounts
WHERE tenant_id = $1 AND livemode = $2 AND kind = $3 AND currency = $4 AND subscription_id IS NULL
"""


class NewLedgerTransaction(NamedTuple):
    """A row of ``ledger_transactions``, in the order of the statement's columns."""

    id: UUID
    subscription_id: UUID
    description: str


class NewLedgerEntry(NamedTuple):
    """A row of ``ledger_entries`` to post, in the order of the statement's columns.

    ``amount`` is in minor units from the subscription's side: negative is owed.
    """

    subscription_id: UUID
    ledger_transaction_id: UUID
    id: UUID
    entry_type: str
    amount: int
    currency: str
    debit_account_id: UUID
    credit_account_id: UUID
    source_usage_event_id: UUID | None
    source_charge_id: UUID | None
    billing_period_id: UUID
    usage_meter_id: UUID | None
    calculation_run_id: UUID | None
    description: str


class OutstandingParts(NamedTuple):
    """What a subscription owes, by how far it got; minor units."""

    unbilled_minor: int
    billed_not_invoiced_minor: int
    invoiced_minor: int


class LedgerStore:
    """Reads and appends to ``ledger_accounts``, ``ledger_transactions`` and ``ledger_entries``."""

    def __init__(self) -> None:
        # Accounts never change, so an id in memory is never stale.
        self._tenant_accounts: dict[tuple[Scope, LedgerAccountKind, str], UUID] = {}

    async def insert_receivable_account(
        self, tx: Transaction, *, subscription_id: UUID, currency: str, now: datetime
    ) -> UUID:
        """Open the account of what a subscription owes, and return its id."""
        account_id = identifiers.new_id()
        await self._insert_account(
            tx, account_id, LedgerAccountKind.RECEIVABLE, currency, subscription_id, now
        )
        return account_id

    async def insert_tenant_accounts(
        self, tx: Transaction, *, currency: str, now: datetime
    ) -> None:
        """Open the accounts that a tenant has once a currency, if they are not open yet."""
        for kind in LedgerAccountKind:
            if kind is not LedgerAccountKind.RECEIVABLE:
                await self._insert_account(tx, identifiers.new_id(), kind, currency, None, now)

    async def get_tenant_account(
        self, tx: Transaction, kind: LedgerAccountKind, currency: str
    ) -> UUID:
        """Return the id of an account that a tenant has once a currency."""
        key = (tx.scope, kind, currency)
        if key not in self._tenant_accounts:
            account_id = await tx.pg.fetchval(
                _FIND_TENANT_ACCOUNT, tx.scope.tenant_id, tx.scope.livemode, kind, currency
            )
            assert account_id is not None, "a plan's currency has its accounts"
            self._tenant_accounts[key] = account_id
        return self._tenant_accounts[key]

    async def insert_transactions(
        self,
        tx: Transaction,
        transactions: Collection[NewLedgerTransaction],
        *,
        source_type: LedgerSourceType,
        source_id: UUID,
        now: datetime,
    ) -> None:
        """Add transactions that one operation made."""
        await tx.pg.execute(
            _INSERT_TRANSACTIONS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            source_type,
            source_id,
            *[list(column) for column in zip(*transactions, strict=True)],
        )

    async def insert_entries(
        self, tx: Transaction, entries: list[NewLedgerEntry], *, now: datetime
    ) -> None:
        """Post entries."""
        tx.posted.update(LedgerEntryType(entry.entry_type) for entry in entries)
        for start in range(0, len(entries), _ROWS_PER_STATEMENT):
            rows = entries[start : start + _ROWS_PER_STATEMENT]
            columns = [list(column) for column in zip(*rows, strict=True)]
            await tx.pg.execute(
                _INSERT_ENTRIES, tx.scope.tenant_id, tx.scope.livemode, now, *columns
            )

    async def list_entries(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
        entry_type: LedgerEntryType | None,
    ) -> Page[LedgerEntry]:
        """Return a page of a subscription's entries in the order they were made."""
        statement = _entries_with_accounts(tx).where(_entries.c.subscription_id == subscription_id)
        if billing_period_id is not None:
            statement = statement.where(_entries.c.billing_period_id == billing_period_id)
        if entry_type is not None:
            statement = statement.where(_entries.c.entry_type == entry_type)
        key = [_entries.c.ledger_transaction_id, _entries.c.id]
        rows = (await tx.sa.execute(page_of(statement, key, request))).mappings().all()
        return to_page(
            rows,
            request,
            decode=_to_entry,
            key=lambda row: (row["ledger_transaction_id"], row["id"]),
        )

    async def get_transaction(
        self, tx: Transaction, ledger_transaction_id: UUID
    ) -> LedgerTransaction:
        """Return a transaction with all its entries; raises ResourceNotFound."""
        header = (
            (
                await tx.sa.execute(
                    sa.select(_transactions).where(
                        in_scope(_transactions, tx.scope),
                        _transactions.c.id == ledger_transaction_id,
                    )
                )
            )
            .mappings()
            .one_or_none()
        )
        if header is None:
            raise ResourceNotFound(
                kind="ledger transaction",
                resource_id=identifiers.to_typeid(
                    identifiers.LEDGER_TRANSACTION, ledger_transaction_id
                ),
            )
        entries = await tx.sa.execute(
            _entries_with_accounts(tx)
            .where(
                _entries.c.subscription_id == header["subscription_id"],
                _entries.c.ledger_transaction_id == ledger_transaction_id,
            )
            .order_by(_entries.c.id)
        )
        return LedgerTransaction(
            id=header["id"],
            subscription_id=header["subscription_id"],
            initiating_source_type=LedgerSourceType(header["initiating_source_type"]),
            initiating_source_id=header["initiating_source_id"],
            description=header["description"],
            created_at=header["created_at"],
            entries=tuple(_to_entry(row) for row in entries.mappings()),
        )

    async def get_outstanding(self, tx: Transaction, subscription_id: UUID) -> OutstandingParts:
        """Return what is owed now, from snapshots and open aggregates: at any age the same cost."""
        record = await tx.pg.fetchrow(
            _BALANCE_NOW, tx.scope.tenant_id, tx.scope.livemode, subscription_id
        )
        assert record is not None
        return OutstandingParts(*record.values())

    async def get_outstanding_as_of(
        self, tx: Transaction, subscription_id: UUID, as_of: datetime
    ) -> OutstandingParts:
        """Return what was owed at a moment, by recorded time, from the entries themselves."""
        record = await tx.pg.fetchrow(
            _BALANCE_AS_OF, tx.scope.tenant_id, tx.scope.livemode, subscription_id, as_of
        )
        assert record is not None
        return OutstandingParts(*record.values())

    async def list_trial_balance(self, tx: Transaction) -> list[TrialBalanceLine]:
        """Return the posted debits and credits by kind of account and currency."""
        records = await tx.pg.fetch(_TRIAL_BALANCE, tx.scope.tenant_id, tx.scope.livemode)
        return [
            TrialBalanceLine(
                LedgerAccountKind(record["kind"]),
                record["currency"],
                record["debit_amount"],
                record["credit_amount"],
            )
            for record in records
        ]

    async def _insert_account(
        self,
        tx: Transaction,
        account_id: UUID,
        kind: LedgerAccountKind,
        currency: str,
        subscription_id: UUID | None,
        now: datetime,
    ) -> None:
        await tx.pg.execute(
            _INSERT_ACCOUNT,
            tx.scope.tenant_id,
            tx.scope.livemode,
            account_id,
            kind,
            currency,
            subscription_id,
            now,
        )


def _entries_with_accounts(tx: Transaction) -> sa.Select[Any]:
    debits, credits_ = _debit_accounts, _credit_accounts
    return (
        sa.select(
            _entries,
            debits.c.kind.label("debit_account_kind"),
            credits_.c.kind.label("credit_account_kind"),
        )
        .select_from(_entries)
        .join(
            debits,
            sa.and_(
                debits.c.tenant_id == _entries.c.tenant_id,
                debits.c.livemode == _entries.c.livemode,
                debits.c.id == _entries.c.debit_account_id,
            ),
        )
        .join(
            credits_,
            sa.and_(
                credits_.c.tenant_id == _entries.c.tenant_id,
                credits_.c.livemode == _entries.c.livemode,
                credits_.c.id == _entries.c.credit_account_id,
            ),
        )
        .where(in_scope(_entries, tx.scope))
    )


def _to_entry(row: Row) -> LedgerEntry:
    return LedgerEntry(
        id=row["id"],
        ledger_transaction_id=row["ledger_transaction_id"],
        subscription_id=row["subscription_id"],
        entry_type=LedgerEntryType(row["entry_type"]),
        status=LedgerEntryStatus(row["status"]),
        amount_minor=row["amount"],
        currency=row["currency"],
        debit_account_id=row["debit_account_id"],
        debit_account_kind=LedgerAccountKind(row["debit_account_kind"]),
        credit_account_id=row["credit_account_id"],
        credit_account_kind=LedgerAccountKind(row["credit_account_kind"]),
        source_usage_event_id=row["source_usage_event_id"],
        source_charge_id=row["source_charge_id"],
        billing_period_id=row["billing_period_id"],
        usage_meter_id=row["usage_meter_id"],
        calculation_run_id=row["calculation_run_id"],
        applied_to_ledger_entry_id=row["applied_to_ledger_entry_id"],
        description=row["description"],
        entry_timestamp=row["entry_timestamp"],
        posted_at=row["posted_at"],
        discarded_at=row["discarded_at"],
    )
