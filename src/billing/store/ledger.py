"""The ledger: transactions and entries."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
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
)
from billing.domain.ledger_filters import LedgerEntryFilter, LedgerEntryStatusFilter
from billing.domain.pages import Page, PageRequest
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query, page_of, to_page

_entries = tables.ledger_entries
_transactions = tables.ledger_transactions
_debit_accounts = tables.ledger_accounts.alias("debit_accounts")
_credit_accounts = tables.ledger_accounts.alias("credit_accounts")

_STATUS_CONDITIONS: Final = {
    LedgerEntryStatusFilter.PENDING: sa.and_(
        _entries.c.status == LedgerEntryStatus.PENDING, _entries.c.discarded_at.is_(None)
    ),
    LedgerEntryStatusFilter.POSTED: _entries.c.status == LedgerEntryStatus.POSTED,
    LedgerEntryStatusFilter.DISCARDED: _entries.c.discarded_at.is_not(None),
}
_SOURCES_WITH_COMPONENT: Final = {
    "source_charge_id": tables.charges,
    "source_credit_application_id": tables.usage_credit_applications,
    "source_billing_period_calculation_id": tables.calculations,
}

_INSERT_ENTRIES = load_query("insert_ledger_entries")
_ROWS_PER_STATEMENT: Final = 1_000
_INSERT_TRANSACTIONS: Final = """
INSERT INTO ledger_transactions (
    tenant_id, livemode, created_at, initiating_source_type, initiating_source_id,
    id, subscription_id, description
)
SELECT $1, $2, $3, $4, $5, u.* FROM unnest($6::uuid[], $7::uuid[], $8::text[]) AS u
"""
_SET_POSTED: Final = """
UPDATE ledger_entries e SET status = 'posted', posted_at = $3
FROM unnest($4::uuid[], $5::uuid[], $6::uuid[]) AS u (subscription_id, ledger_transaction_id, id)
WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = u.subscription_id
  AND e.ledger_transaction_id = u.ledger_transaction_id AND e.id = u.id
RETURNING e.entry_type
"""
_DISCARD: Final = """
UPDATE ledger_entries e SET discarded_at = $3
FROM unnest($4::uuid[], $5::uuid[], $6::uuid[]) AS u (subscription_id, ledger_transaction_id, id)
WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = u.subscription_id
  AND e.ledger_transaction_id = u.ledger_transaction_id AND e.id = u.id
"""


class LedgerEntryKey(NamedTuple):
    """What names an entry."""

    subscription_id: UUID
    ledger_transaction_id: UUID
    id: UUID


class NewLedgerTransaction(NamedTuple):
    """A row of ``ledger_transactions``, in the order of the statement's columns."""

    id: UUID
    subscription_id: UUID
    description: str


class NewLedgerEntry(NamedTuple):
    """A row of ``ledger_entries``, in the order of the statement's columns.

    ``amount`` is in minor units from the subscription's side: negative is owed.
    """

    subscription_id: UUID
    ledger_transaction_id: UUID
    id: UUID
    entry_type: LedgerEntryType
    amount: int
    currency: str
    debit_account_id: UUID
    credit_account_id: UUID
    description: str
    source_usage_event_id: UUID | None = None
    source_charge_id: UUID | None = None
    source_usage_credit_id: UUID | None = None
    source_credit_application_id: UUID | None = None
    source_credit_balance_adjustment_id: UUID | None = None
    source_payment_id: UUID | None = None
    source_refund_id: UUID | None = None
    source_billing_period_calculation_id: UUID | None = None
    source_write_off_id: UUID | None = None
    applied_to_ledger_entry_id: UUID | None = None
    billing_period_id: UUID | None = None
    usage_meter_id: UUID | None = None
    calculation_run_id: UUID | None = None

    @property
    def key(self) -> LedgerEntryKey:
        """What names it."""
        return LedgerEntryKey(self.subscription_id, self.ledger_transaction_id, self.id)


class LedgerStore:
    """Reads and appends to ``ledger_transactions`` and ``ledger_entries``."""

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
        self,
        tx: Transaction,
        entries: Sequence[NewLedgerEntry],
        *,
        now: datetime,
        status: LedgerEntryStatus = LedgerEntryStatus.POSTED,
    ) -> None:
        """Add entries, posted unless told otherwise."""
        if status is LedgerEntryStatus.POSTED:
            tx.posted.update(entry.entry_type for entry in entries)
        for start in range(0, len(entries), _ROWS_PER_STATEMENT):
            rows = entries[start : start + _ROWS_PER_STATEMENT]
            columns = [list(column) for column in zip(*rows, strict=True)]
            await tx.pg.execute(
                _INSERT_ENTRIES, tx.scope.tenant_id, tx.scope.livemode, now, status, *columns
            )

    async def post_entries(
        self, tx: Transaction, keys: Collection[LedgerEntryKey], *, now: datetime
    ) -> None:
        """Post pending entries."""
        if keys:
            posted = await self._change(tx, _SET_POSTED, keys, now=now)
            tx.posted.update(LedgerEntryType(record["entry_type"]) for record in posted)

    async def discard_entries(
        self, tx: Transaction, keys: Collection[LedgerEntryKey], *, now: datetime
    ) -> None:
        """Discard pending entries."""
        if keys:
            await self._change(tx, _DISCARD, keys, now=now)

    async def _change(
        self,
        tx: Transaction,
        statement: str,
        keys: Collection[LedgerEntryKey],
        *,
        now: datetime,
    ) -> list[asyncpg.Record]:
        return await tx.pg.fetch(
            statement,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            *[list(column) for column in zip(*keys, strict=True)],
        )

    async def list_entries(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        entry_filter: LedgerEntryFilter,
    ) -> Page[LedgerEntry]:
        """Return a page of a subscription's entries in the order they were made."""
        statement = _entries_with_accounts(tx).where(
            _entries.c.subscription_id == subscription_id, *_conditions(tx, entry_filter)
        )
        key = [_entries.c.ledger_transaction_id, _entries.c.id]
        rows = (await tx.sa.execute(page_of(statement, key, request))).mappings().all()
        return to_page(
            rows,
            request,
            decode=to_ledger_entry,
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
            entries=tuple(to_ledger_entry(row) for row in entries.mappings()),
        )


def _conditions(
    tx: Transaction, entry_filter: LedgerEntryFilter
) -> Iterator[sa.ColumnElement[bool]]:
    for column in ("billing_period_id", "entry_type", "calculation_run_id"):
        value = getattr(entry_filter, column)
        if value is not None:
            yield _entries.c[column] == value
    if entry_filter.source is not None:
        yield _entries.c[entry_filter.source.field] == entry_filter.source.id
    if entry_filter.component_id is not None:
        yield _of_component(tx, entry_filter.component_id)
    if entry_filter.status is not None:
        yield _STATUS_CONDITIONS[entry_filter.status]


def _of_component(tx: Transaction, component_id: UUID) -> sa.ColumnElement[bool]:
    """An entry is of the component that its source is of."""
    events, meters = tables.usage_events, tables.subscription_usage_meters
    of_usage = (
        sa.select(sa.literal(1))
        .where(
            in_scope(events, tx.scope),
            events.c.id == _entries.c.source_usage_event_id,
            in_scope(meters, tx.scope),
            meters.c.id == events.c.subscription_usage_meter_id,
            meters.c.component_id == component_id,
        )
        .exists()
    )
    return sa.or_(
        of_usage,
        *(
            sa.select(sa.literal(1))
            .where(
                in_scope(table, tx.scope),
                table.c.id == _entries.c[source],
                table.c.component_id == component_id,
            )
            .exists()
            for source, table in _SOURCES_WITH_COMPONENT.items()
        ),
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


def to_ledger_entry(row: Row) -> LedgerEntry:
    """Return the entry of a row that has the kinds of its accounts beside its own columns."""
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
        source_usage_credit_id=row["source_usage_credit_id"],
        source_credit_application_id=row["source_credit_application_id"],
        source_credit_balance_adjustment_id=row["source_credit_balance_adjustment_id"],
        source_billing_period_calculation_id=row["source_billing_period_calculation_id"],
        source_payment_id=row["source_payment_id"],
        source_refund_id=row["source_refund_id"],
        source_write_off_id=row["source_write_off_id"],
        billing_period_id=row["billing_period_id"],
        usage_meter_id=row["usage_meter_id"],
        calculation_run_id=row["calculation_run_id"],
        applied_to_ledger_entry_id=row["applied_to_ledger_entry_id"],
        description=row["description"],
        entry_timestamp=row["entry_timestamp"],
        posted_at=row["posted_at"],
        discarded_at=row["discarded_at"],
    )
