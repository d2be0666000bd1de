"""What subscriptions owe and have, and what the tenant's accounts hold."""

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from billing.domain.ledger import LedgerAccountKind, TrialBalanceLine
from billing.store.database import Transaction
from billing.store.statements import load_query

_TRIAL_BALANCE = load_query("trial_balance")
_BALANCE_NOW = load_query("balance_now")
_BALANCE_AS_OF = load_query("balance_as_of")


class BalanceParts(NamedTuple):
    """What a subscription owes, by how far it got, and what it has; minor units.

    In the order of the statements' columns.
    """

    unbilled_minor: int
    billed_not_invoiced_minor: int
    invoiced_minor: int
    credit_balance_minor: int
    available_credit_minor: int


class BalanceStore:
    """Tells balances: now from snapshots and running figures, earlier from the entries."""

    async def get_balance(
        self, tx: Transaction, subscription_id: UUID, *, now: datetime
    ) -> BalanceParts:
        """Return the balance of now: at any age of the ledger the same cost."""
        record = await tx.pg.fetchrow(
            _BALANCE_NOW, tx.scope.tenant_id, tx.scope.livemode, subscription_id, now
        )
        assert record is not None
        return BalanceParts(*record.values())

    async def get_balance_as_of(
        self, tx: Transaction, subscription_id: UUID, as_of: datetime
    ) -> BalanceParts:
        """Return the balance of a moment, by recorded time, from the entries themselves."""
        record = await tx.pg.fetchrow(
            _BALANCE_AS_OF, tx.scope.tenant_id, tx.scope.livemode, subscription_id, as_of
        )
        assert record is not None
        return BalanceParts(*record.values())

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
