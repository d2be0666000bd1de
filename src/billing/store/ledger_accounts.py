"""The accounts of the ledger."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from billing.domain import identifiers
from billing.domain.ledger import TENANT_ACCOUNT_KINDS, LedgerAccountKind
from billing.domain.scope import Scope
from billing.store.database import Transaction

_INSERT: Final = """
INSERT INTO ledger_accounts (tenant_id, livemode, id, kind, currency, subscription_id, created_at)
SELECT $1, $2, u.id, u.kind, u.currency, u.subscription_id, $3
FROM unnest($4::uuid[], $5::text[], $6::text[], $7::uuid[])
    AS u (id, kind, currency, subscription_id)
ON CONFLICT DO NOTHING
"""
_LIST_TENANT_ACCOUNTS: Final = """
SELECT kind, id FROM ledger_accounts
WHERE tenant_id = $1 AND livemode = $2 AND kind = ANY ($4::text[]) AND currency = $3
  AND subscription_id IS NULL AND kind <> 'credit'
"""
_FIND_REFUND_CLEARING: Final = """
SELECT id FROM ledger_accounts
WHERE tenant_id = $1 AND livemode = $2 AND kind = 'refund_clearing' AND currency = $3
  AND subscription_id = $4
"""

TenantAccounts = Mapping[LedgerAccountKind, UUID]
"""The accounts that a tenant has once a currency, by kind."""


class LedgerAccountStore:
    """Reads and writes ``ledger_accounts``."""

    def __init__(self) -> None:
        # Accounts never change, so an id in memory is never stale.
        self._tenant_accounts: dict[tuple[Scope, str], TenantAccounts] = {}

    async def insert_receivable_account(
        self, tx: Transaction, *, subscription_id: UUID, currency: str, now: datetime
    ) -> UUID:
        """Open the account of what a subscription owes, and return its id."""
        account_id = identifiers.new_id()
        await self._insert(
            tx, [(account_id, LedgerAccountKind.RECEIVABLE, currency, subscription_id)], now=now
        )
        return account_id

    async def insert_credit_accounts(
        self, tx: Transaction, credits_: Collection[tuple[UUID, str, UUID]], *, now: datetime
    ) -> None:
        """Open the accounts of credits, with their ids, as (credit, currency, subscription)."""
        await self._insert(
            tx,
            [
                (credit_id, LedgerAccountKind.CREDIT, currency, subscription_id)
                for credit_id, currency, subscription_id in credits_
            ],
            now=now,
        )

    async def insert_tenant_accounts(
        self, tx: Transaction, *, currency: str, now: datetime
    ) -> None:
        """Open the accounts that a tenant has once a currency, if they are not open yet."""
        await self._insert(
            tx,
            [(identifiers.new_id(), kind, currency, None) for kind in TENANT_ACCOUNT_KINDS],
            now=now,
        )

    async def get_tenant_accounts(self, tx: Transaction, currency: str) -> TenantAccounts:
        """Return the accounts that a tenant has once a currency."""
        key = (tx.scope, currency)
        if key not in self._tenant_accounts:
            found = await self._list_tenant_accounts(tx, currency)
            if len(found) < len(TENANT_ACCOUNT_KINDS):
                # An older version made the currency's first plan.
                await self.insert_tenant_accounts(tx, currency=currency, now=datetime.now(UTC))
                found = await self._list_tenant_accounts(tx, currency)
                return found  # not kept: the transaction may be rolled back
            self._tenant_accounts[key] = found
        return self._tenant_accounts[key]

    async def _list_tenant_accounts(self, tx: Transaction, currency: str) -> TenantAccounts:
        records = await tx.pg.fetch(
            _LIST_TENANT_ACCOUNTS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            currency,
            list(TENANT_ACCOUNT_KINDS),
        )
        return {LedgerAccountKind(record["kind"]): record["id"] for record in records}

    async def get_refund_clearing_account(
        self, tx: Transaction, *, subscription_id: UUID, currency: str, now: datetime
    ) -> UUID:
        """Return the account that joins a locked subscription's refunds; opens it at the first."""
        scope = (tx.scope.tenant_id, tx.scope.livemode)
        found = await tx.pg.fetchval(_FIND_REFUND_CLEARING, *scope, currency, subscription_id)
        if found is None:
            found = identifiers.new_id()
            kind = LedgerAccountKind.REFUND_CLEARING
            await self._insert(tx, [(found, kind, currency, subscription_id)], now=now)
        assert isinstance(found, UUID)
        return found

    async def _insert(
        self,
        tx: Transaction,
        accounts: Collection[tuple[UUID, LedgerAccountKind, str, UUID | None]],
        *,
        now: datetime,
    ) -> None:
        await tx.pg.execute(
            _INSERT,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            *[list(column) for column in zip(*accounts, strict=True)],
        )
