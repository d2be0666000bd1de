"""The accounts that a tenant has once a currency."""

from datetime import UTC, datetime

import pytest

from billing.domain import identifiers
from billing.domain.ledger import TENANT_ACCOUNT_KINDS, LedgerAccountKind
from billing.domain.scope import Scope
from billing.store.database import Database, Transaction
from billing.store.ledger_accounts import LedgerAccountStore, TenantAccounts

NOW = datetime(2026, 3, 1, tzinfo=UTC)
_INSERT = """
INSERT INTO ledger_accounts (tenant_id, livemode, id, kind, currency, created_at)
VALUES ($1, $2, $3, $4, 'CHF', $5)
"""


async def open_as_before_credits(tx: Transaction) -> None:
    """Open what a version without credits opens with a currency's first plan."""
    for kind in (LedgerAccountKind.USAGE_REVENUE, LedgerAccountKind.SUBSCRIPTION_REVENUE):
        await tx.pg.execute(
            _INSERT, tx.scope.tenant_id, tx.scope.livemode, identifiers.new_id(), kind, NOW
        )


async def test_what_an_older_version_did_not_open_is_opened_on_sight(
    database: Database, scope: Scope
) -> None:
    async with database.transaction(scope) as tx:
        await open_as_before_credits(tx)
    store = LedgerAccountStore()
    async with database.transaction(scope) as tx:
        found = await store.get_tenant_accounts(tx, "CHF")
    assert set(found) == set(TENANT_ACCOUNT_KINDS)
    async with database.transaction(scope) as tx:
        assert await LedgerAccountStore().get_tenant_accounts(tx, "CHF") == found


class Undone(Exception):
    """What rolls a transaction back."""


async def test_an_account_of_a_transaction_that_was_rolled_back_is_not_remembered(
    database: Database, scope: Scope
) -> None:
    async with database.transaction(scope) as tx:
        await open_as_before_credits(tx)
    store = LedgerAccountStore()
    lost: list[TenantAccounts] = []

    async def open_and_undo() -> None:
        async with database.transaction(scope) as tx:
            lost.append(await store.get_tenant_accounts(tx, "CHF"))
            raise Undone

    with pytest.raises(Undone):
        await open_and_undo()
    async with database.transaction(scope) as tx:
        found = await store.get_tenant_accounts(tx, "CHF")
        again = await store.get_tenant_accounts(tx, "CHF")
    assert found == again
    assert found[LedgerAccountKind.CASH] != lost[0][LedgerAccountKind.CASH]
