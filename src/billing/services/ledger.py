"""Use cases of the ledger: balances, entries, transactions, the trial balance."""

from datetime import datetime
from uuid import UUID

from billing.domain.errors import FieldInvalid
from billing.domain.ledger import (
    Balance,
    LedgerEntry,
    LedgerTransaction,
    TrialBalanceLine,
)
from billing.domain.ledger_filters import LedgerEntryFilter
from billing.domain.pages import Page, PageRequest
from billing.domain.scope import Scope
from billing.services.ports import Clock
from billing.store.balances import BalanceStore
from billing.store.database import Database
from billing.store.ledger import LedgerStore
from billing.store.subscriptions import SubscriptionStore


class LedgerService:
    """Reads the ledger."""

    def __init__(
        self,
        database: Database,
        ledger: LedgerStore,
        balances: BalanceStore,
        subscriptions: SubscriptionStore,
        clock: Clock,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._balances = balances
        self._subscriptions = subscriptions
        self._clock = clock

    async def get_balance(
        self, scope: Scope, subscription_id: UUID, *, as_of: datetime | None
    ) -> Balance:
        """Return what a subscription owes and has.

        Raises ResourceNotFound, and FieldInvalid for the future.
        """
        now = self._clock()
        require_past(as_of, now=now)
        async with self._database.transaction(scope) as tx:
            subscription = await self._subscriptions.get_subscription(tx, subscription_id)
            if as_of is None:
                parts = await self._balances.get_balance(tx, subscription_id, now=now)
            else:
                parts = await self._balances.get_balance_as_of(tx, subscription_id, as_of)
        return Balance(subscription_id, subscription.currency, *parts, as_of=as_of or now)

    async def list_ledger_entries(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        entry_filter: LedgerEntryFilter,
    ) -> Page[LedgerEntry]:
        """Return a page of a subscription's entries; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._ledger.list_entries(
                tx, page, subscription_id=subscription_id, entry_filter=entry_filter
            )

    async def get_ledger_transaction(
        self, scope: Scope, ledger_transaction_id: UUID
    ) -> LedgerTransaction:
        """Return a transaction with its entries; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            return await self._ledger.get_transaction(tx, ledger_transaction_id)

    async def get_trial_balance(self, scope: Scope) -> list[TrialBalanceLine]:
        """Return posted debits and credits by kind of account and currency."""
        async with self._database.transaction(scope) as tx:
            return await self._balances.list_trial_balance(tx)


def require_past(as_of: datetime | None, *, now: datetime) -> None:
    """Raise FieldInvalid for a moment in the future, of which nothing is recorded."""
    if as_of is not None and as_of > now:
        raise FieldInvalid(
            "as_of",
            f"{as_of.isoformat()} lies in the future; the server's clock says {now.isoformat()}",
        )
