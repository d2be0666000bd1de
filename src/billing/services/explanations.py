"""Use cases that explain: the charges there are, why one is what it is, why a balance moved."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from billing.domain.balance_explanations import BalanceExplanation
from billing.domain.charges import KeptCharge
from billing.domain.errors import FieldInvalid
from billing.domain.explanations import ChargeExplanation, InvoicedPeriod, explain_charge
from billing.domain.ledger import Balance
from billing.domain.pages import Page, PageRequest
from billing.domain.recalculations import Recalculation
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.services.charge_explaining import ChargeExplainer
from billing.services.ports import Clock
from billing.store.balances import BalanceStore
from billing.store.billing_periods import BillingPeriodStore
from billing.store.catalog import CatalogStore
from billing.store.charges import ChargeStore
from billing.store.database import Database, Transaction
from billing.store.explanations import ExplanationStore
from billing.store.recalculations import RecalculationStore
from billing.store.subscriptions import SubscriptionStore

BEGINNING: Final = datetime.min.replace(tzinfo=UTC)
"""Before all entries: the moment of a balance that is asked for from the beginning."""

_RECALCULATIONS_AT_A_TIME: Final = 100


class ExplanationService:
    """Explains charges and balances; each from one snapshot of the books."""

    def __init__(
        self,
        database: Database,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        catalog: CatalogStore,
        charges: ChargeStore,
        recalculations: RecalculationStore,
        balances: BalanceStore,
        explanations: ExplanationStore,
        explainer: ChargeExplainer,
        clock: Clock,
    ) -> None:
        self._database = database
        self._subscriptions = subscriptions
        self._periods = periods
        self._catalog = catalog
        self._charges = charges
        self._recalculations = recalculations
        self._balances = balances
        self._explanations = explanations
        self._explainer = explainer
        self._clock = clock

    async def list_charges(
        self,
        scope: Scope,
        page: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
    ) -> Page[KeptCharge]:
        """Return a page of a subscription's charges, oldest first; raises ResourceNotFound."""
        async with self._database.transaction(scope) as tx:
            await self._subscriptions.get_subscription(tx, subscription_id)
            return await self._charges.list_charges(
                tx, page, subscription_id=subscription_id, billing_period_id=billing_period_id
            )

    async def explain_charge(
        self, scope: Scope, page: PageRequest, charge_id: UUID
    ) -> ChargeExplanation:
        """Return why a charge is what it is, with a page of its usage.

        Raises ResourceNotFound, and FiguresContradict where the books contradict themselves.
        """
        async with self._database.snapshot(scope) as tx:
            charge = await self._charges.get_charge(tx, charge_id)
            invoiced = await self._read_period(tx, charge)
            version_id = invoiced.period.plan_version_id
            versions = await self._catalog.get_plan_versions(tx, [version_id])
            explanation = await self._explainer.explain(
                tx, page, charge, invoiced, versions[version_id]
            )
        return explain_charge(charge, invoiced, explanation)

    async def explain_balance(
        self,
        scope: Scope,
        subscription_id: UUID,
        *,
        after: datetime | None,
        until: datetime | None,
    ) -> BalanceExplanation:
        """Return what was posted after one moment and until another, and the balances of both.

        The end is the present if it lies in the future. Raises ResourceNotFound, FieldInvalid where
        the end lies before the beginning, and FiguresContradict.
        """
        now = self._clock()
        beginning = BEGINNING if after is None else after
        end = now if until is None else min(until, now)
        _require_span(beginning, end, until=until)
        async with self._database.snapshot(scope) as tx:
            subscription = await self._subscriptions.get_subscription(tx, subscription_id)
            return BalanceExplanation(
                opening=await self._get_balance(tx, subscription, beginning),
                movements=await self._explanations.list_movements(
                    tx, subscription_id, after=beginning, until=end
                ),
                closing=await self._get_balance(tx, subscription, end),
            )

    async def _read_period(self, tx: Transaction, charge: KeptCharge) -> InvoicedPeriod:
        period, invoice_id = await self._periods.get_period(
            tx, charge.subscription_id, charge.billing_period_id
        )
        return InvoicedPeriod(
            period=period,
            invoice_id=invoice_id,
            total_minor=await self._explanations.get_total(tx, period.id),
            lines=await self._charges.list_lines(
                tx, subscription_id=period.subscription_id, billing_period_id=period.id
            ),
            recalculations=await self._list_recalculations(tx, charge),
        )

    async def _list_recalculations(
        self, tx: Transaction, charge: KeptCharge
    ) -> tuple[Recalculation, ...]:
        """Return all of a period, oldest first: few, as each waits for the last one's documents."""
        found: list[Recalculation] = []
        request: PageRequest | None = PageRequest(_RECALCULATIONS_AT_A_TIME)
        while request is not None:
            page = await self._recalculations.list_recalculations(
                tx,
                request,
                subscription_id=charge.subscription_id,
                billing_period_id=charge.billing_period_id,
            )
            found += page.items
            request = PageRequest(request.size, page.next_after) if page.next_after else None
        return tuple(found)

    async def _get_balance(
        self, tx: Transaction, subscription: Subscription, as_of: datetime
    ) -> Balance:
        """From the entries themselves, as the movements are."""
        parts = await self._balances.get_balance_as_of(tx, subscription.id, as_of)
        return Balance(subscription.id, subscription.currency, *parts, as_of=as_of)


def _require_span(beginning: datetime, end: datetime, *, until: datetime | None) -> None:
    if beginning > end:
        told = "the present" if until is None or until > end else "posted_until"
        raise FieldInvalid(
            "posted_after",
            f"{beginning.isoformat()} lies after {told} ({end.isoformat()}): nothing can have "
            "been posted in between",
        )
