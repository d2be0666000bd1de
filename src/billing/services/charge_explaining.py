"""Reads what a charge consists of, by its kind, in the caller's transaction."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final
from uuid import UUID

from billing.domain.billing import ChargeType
from billing.domain.catalog import Component, PlanVersion
from billing.domain.charges import KeptCharge
from billing.domain.credit_explanations import (
    CarriedExplanation,
    CreditExplanation,
    DeficitExplanation,
    explain_carried,
    explain_credit,
    explain_deficit,
)
from billing.domain.explanations import (
    Explanation,
    InvoicedPeriod,
    RecurringExplanation,
    explain_recurring,
)
from billing.domain.pages import Page, PageRequest
from billing.domain.proofs import FiguresContradict
from billing.domain.rating import ZERO
from billing.domain.recalculations import Recalculation
from billing.domain.usage_explanations import (
    ExplainedUsageEvent,
    TakenInUsage,
    UsageChangeExplanation,
    UsageExplanation,
    UsageTotals,
    explain_usage,
    explain_usage_change,
    require_whole,
)
from billing.store.database import Transaction
from billing.store.explained_usage import ExplainedUsageStore, TakenIn, billed_meter
from billing.store.explanations import ExplanationStore

_NO_USAGE: Final = UsageTotals(0, ZERO, 0, 0, ZERO, 0)


class ChargeExplainer:
    """Puts together what a charge consists of, and has the domain prove it."""

    def __init__(self, explanations: ExplanationStore, usage: ExplainedUsageStore) -> None:
        self._explanations = explanations
        self._usage = usage

    async def explain(
        self,
        tx: Transaction,
        page: PageRequest,
        charge: KeptCharge,
        invoiced: InvoicedPeriod,
        version: PlanVersion,
    ) -> Explanation:
        """Return why a charge is what it is; raises FiguresContradict."""
        if charge.charge_type is ChargeType.USAGE:
            component = _component_of(charge, version)
            recalculation = invoiced.recalculation_of(charge)
            if recalculation is None:
                return await self._explain_usage(tx, page, charge, invoiced, component)
            return await self._explain_change(tx, page, charge, component, recalculation)
        if charge.charge_type is ChargeType.RECURRING:
            return await self._explain_recurring(tx, charge, version)
        readers: Mapping[ChargeType, Callable[..., Awaitable[Explanation]]] = {
            ChargeType.CREDIT: self._explain_credit,
            ChargeType.CREDIT_DEFICIT: self._explain_deficit,
            ChargeType.CARRIED: self._explain_carried,
        }
        return await readers[charge.charge_type](tx, charge, invoiced)

    async def _explain_usage(
        self,
        tx: Transaction,
        page: PageRequest,
        charge: KeptCharge,
        invoiced: InvoicedPeriod,
        component: Component,
    ) -> UsageExplanation:
        meter_id = await self._usage.find_meter(tx, charge)
        totals = _NO_USAGE
        events: Page[ExplainedUsageEvent] = Page((), None)
        if meter_id is not None:
            meter = billed_meter(charge, meter_id)
            totals = await self._usage.sum_posted(tx, meter)
            events = await self._usage.list_posted(tx, page, meter)
        if _is_whole(page, events.next_after):
            require_whole(totals, events.items)
        return explain_usage(
            charge,
            component,
            await self._usage.list_calculations(tx, charge),
            totals,
            events,
            await self._explanations.list_credit_uses(
                tx, charge, invoiced, component_id=component.id
            ),
        )

    async def _explain_change(
        self,
        tx: Transaction,
        page: PageRequest,
        charge: KeptCharge,
        component: Component,
        recalculation: Recalculation,
    ) -> UsageChangeExplanation:
        meter_id = await self._usage.find_meter(tx, charge)
        totals = _NO_USAGE
        usages: Page[TakenInUsage] = Page((), None)
        if meter_id is not None:
            taken_in = TakenIn(
                charge.subscription_id,
                charge.billing_period_id,
                meter_id,
                recalculation.created_at,
            )
            totals = await self._usage.sum_taken_in(tx, taken_in)
            usages = await self._usage.list_taken_in(tx, page, taken_in)
        if _is_whole(page, usages.next_after):
            require_whole(totals, usages.items)
        calculations = await self._usage.list_calculations(tx, charge)
        adjustment = None
        for calculation in calculations:
            if calculation.calculation_run_id == recalculation.id:
                adjustment = await self._explanations.find_billing_adjustment(tx, calculation.id)
        return explain_usage_change(charge, component, calculations, totals, usages, adjustment)

    async def _explain_recurring(
        self, tx: Transaction, charge: KeptCharge, version: PlanVersion
    ) -> RecurringExplanation:
        entries = await self._explanations.list_entries_of_charge(tx, charge)
        return explain_recurring(charge, version, entries)

    async def _explain_credit(
        self, tx: Transaction, charge: KeptCharge, invoiced: InvoicedPeriod
    ) -> CreditExplanation:
        uses = await self._explanations.list_credit_uses(tx, charge, invoiced, component_id=None)
        return explain_credit(charge, uses)

    async def _explain_deficit(
        self, tx: Transaction, charge: KeptCharge, invoiced: InvoicedPeriod
    ) -> DeficitExplanation:
        return explain_deficit(charge, await self._explanations.list_deficits(tx, charge))

    async def _explain_carried(
        self, tx: Transaction, charge: KeptCharge, invoiced: InvoicedPeriod
    ) -> CarriedExplanation:
        recalculation = invoiced.recalculation_of(charge)
        paid_before_minor = 0
        if recalculation is None:
            paid_before_minor = await self._explanations.sum_paid_before(tx, charge)
        return explain_carried(
            charge,
            invoiced.lines_up_to(charge),
            await self._explanations.find_surplus(tx, charge, recalculation),
            paid_before_minor=paid_before_minor,
            recalculation=recalculation,
        )


def _component_of(charge: KeptCharge, version: PlanVersion) -> Component:
    for component in version.components:
        if component.id == charge.component_id:
            return component
    raise FiguresContradict("components", line=charge.typeid, component=None)


def _is_whole(request: PageRequest, next_after: tuple[UUID, ...] | None) -> bool:
    """Whether the page at hand is the only one."""
    return request.after is None and next_after is None
