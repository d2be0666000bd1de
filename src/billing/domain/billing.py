"""Computes what a billing period costs: charges, calculations and the invoice to ask for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from billing.domain import identifiers
from billing.domain.catalog import BillingInterval, Component, IntervalUnit, PlanVersion
from billing.domain.errors import UsageDiffersFromLedger
from billing.domain.invoices import PAYMENT_TERM, InvoiceLineItem, InvoiceRequest
from billing.domain.money import checked_amount, grouped
from billing.domain.periods import BillingPeriod
from billing.domain.rating import ZERO, billable_units, charge_minor
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.domain.usage import UsageTally


class ChargeType(StrEnum):
    """What a charge is for."""

    RECURRING = "recurring"
    USAGE = "usage"


class CalculationType(StrEnum):
    """What made a calculation."""

    BILLING_RUN = "billing_run"


@dataclass(frozen=True, slots=True)
class Charge:
    """One invoice line's record. ``unit_price`` and ``amount_minor`` are in minor units."""

    id: UUID
    charge_type: ChargeType
    component_id: UUID | None
    description: str
    quantity: Decimal
    unit_price: Decimal
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Calculation:
    """Snapshot of what one component costs in one period; all amounts are positive minor units."""

    id: UUID
    component_id: UUID
    usage_meter_id: UUID
    total_quantity: Decimal
    billable_quantity: Decimal
    unit_price: Decimal
    total_raw_usage_minor: int
    credits_applied_minor: int

    @property
    def net_billed_minor(self) -> int:
        """Raw usage less credits."""
        return self.total_raw_usage_minor - self.credits_applied_minor


@dataclass(frozen=True, slots=True)
class PeriodBill:
    """Everything that billing one period writes."""

    calculation_run_id: UUID
    subscription: Subscription
    period: BillingPeriod
    charges: tuple[Charge, ...]
    calculations: tuple[Calculation, ...]
    total_minor: int
    invoice_request: InvoiceRequest | None

    @property
    def recurring_charges(self) -> tuple[Charge, ...]:
        """The charges that are not in the ledger yet: usage was posted as it arrived."""
        return tuple(c for c in self.charges if c.charge_type is ChargeType.RECURRING)


_ADVERBS = {
    IntervalUnit.DAY: "Daily",
    IntervalUnit.WEEK: "Weekly",
    IntervalUnit.MONTH: "Monthly",
    IntervalUnit.YEAR: "Yearly",
}


def interval_label(interval: BillingInterval) -> str:
    """Return ``Monthly``, ``3-month`` and the like."""
    if interval.count == 1:
        return _ADVERBS[interval.unit]
    return f"{interval.count}-{interval.unit}"


def usage_description(component: Component, quantity: Decimal) -> str:
    """Return ``API Calls (1,500 over 1,000 included)``: the first figure is what is charged."""
    billable = grouped(billable_units(component, quantity))
    if component.included_units == 0:
        return f"{component.name} ({billable})"
    return f"{component.name} ({billable} over {grouped(component.included_units)} included)"


def bill_period(
    scope: Scope,
    subscription: Subscription,
    period: BillingPeriod,
    version: PlanVersion,
    tallies: Mapping[UUID, UsageTally],
    *,
    billed_at: datetime,
) -> PeriodBill:
    """Compute the bill of one period; ``tallies`` are its aggregates by component.

    Raises AmountOutOfRange where the total does not fit, and UsageDiffersFromLedger where the
    aggregates contradict their own quantities.
    """
    charges = [] if period.is_stub else _recurring_charges(version)
    calculations: list[Calculation] = []
    for component in version.components:
        tally = tallies.get(component.id)
        if period.is_stub and tally is None:
            continue
        quantity = tally.quantity if tally else ZERO
        amount_minor = _rated_amount(component, tally, quantity)
        charges.append(_usage_charge(component, quantity, amount_minor))
        calculations.append(_calculation(component, quantity, amount_minor))
    total_minor = checked_amount(sum(charge.amount_minor for charge in charges))
    return PeriodBill(
        calculation_run_id=identifiers.new_id(),
        subscription=subscription,
        period=period,
        charges=tuple(charges),
        calculations=tuple(calculations),
        total_minor=total_minor,
        invoice_request=_invoice_request(
            scope, subscription, period, charges, total_minor=total_minor, billed_at=billed_at
        ),
    )


def _recurring_charges(version: PlanVersion) -> list[Charge]:
    if version.base_price_minor == 0:
        return []
    return [
        Charge(
            id=identifiers.new_id(),
            charge_type=ChargeType.RECURRING,
            component_id=None,
            description=f"{interval_label(version.interval)} subscription - {version.name}",
            quantity=Decimal(1),
            unit_price=Decimal(version.base_price_minor),
            amount_minor=version.base_price_minor,
        )
    ]


def _rated_amount(component: Component, tally: UsageTally | None, quantity: Decimal) -> int:
    """The charge of the quantity, which must be what the ledger holds for it."""
    amount_minor = charge_minor(component, quantity)
    rated_minor = tally.rated_minor if tally else 0
    if rated_minor != amount_minor:
        raise UsageDiffersFromLedger(
            component_id=identifiers.to_typeid(identifiers.COMPONENT, component.id),
            charge_minor=amount_minor,
            rated_minor=rated_minor,
        )
    return amount_minor


def _usage_charge(component: Component, quantity: Decimal, amount_minor: int) -> Charge:
    return Charge(
        id=identifiers.new_id(),
        charge_type=ChargeType.USAGE,
        component_id=component.id,
        description=usage_description(component, quantity),
        quantity=billable_units(component, quantity),
        unit_price=component.unit_price,
        amount_minor=amount_minor,
    )


def _calculation(component: Component, quantity: Decimal, amount_minor: int) -> Calculation:
    return Calculation(
        id=identifiers.new_id(),
        component_id=component.id,
        usage_meter_id=component.usage_meter_id,
        total_quantity=quantity,
        billable_quantity=billable_units(component, quantity),
        unit_price=component.unit_price,
        total_raw_usage_minor=amount_minor,
        credits_applied_minor=0,
    )


def _invoice_request(
    scope: Scope,
    subscription: Subscription,
    period: BillingPeriod,
    charges: list[Charge],
    *,
    total_minor: int,
    billed_at: datetime,
) -> InvoiceRequest | None:
    if not charges:
        return None
    issue_date = billed_at.date()
    return InvoiceRequest(
        idempotency_key=identifiers.to_typeid(identifiers.BILLING_PERIOD, period.id),
        tenant_id=scope.tenant_id,
        livemode=scope.livemode,
        customer_id=subscription.customer_id,
        currency=subscription.currency,
        line_items=tuple(
            InvoiceLineItem(c.description, c.quantity, c.unit_price, c.amount_minor)
            for c in charges
        ),
        issue_date=issue_date,
        due_date=issue_date + PAYMENT_TERM,
        total_minor=total_minor,
        subscription_id=subscription.id,
        period_start=period.period_start,
        period_end=period.period_end,
    )
