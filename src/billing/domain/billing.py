"""Computes what a billing period costs: charges, calculations and the invoice to ask for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from billing.domain import identifiers
from billing.domain.catalog import BillingInterval, Component, IntervalUnit, PlanVersion
from billing.domain.credit_consumption import (
    ChargeDemand,
    NewApplication,
    PeriodCredits,
    consume,
    consume_last,
    segments_of,
    unpaid_charges,
)
from billing.domain.credits import UsageCredit
from billing.domain.errors import UsageDiffersFromLedger
from billing.domain.invoices import PAYMENT_TERM, InvoiceLineItem, InvoiceRequest
from billing.domain.money import checked_amount, grouped
from billing.domain.periods import BillingPeriod
from billing.domain.rating import ZERO, billable_units, charge_minor
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.domain.usage import UsageTally


class ChargeType(StrEnum):
    """What a charge is for. ``credit`` and ``carried`` are lines about other charges."""

    RECURRING = "recurring"
    USAGE = "usage"
    CREDIT_DEFICIT = "credit_deficit"
    CREDIT = "credit"
    CARRIED = "carried"


class CalculationType(StrEnum):
    """What made a calculation."""

    BILLING_RUN = "billing_run"
    INTERIM_ESTIMATE = "interim_estimate"
    ADJUSTMENT_RECALCULATION = "adjustment_recalculation"


class CalculationStatus(StrEnum):
    """Whether a calculation counts; a discarded estimate was overtaken by something else."""

    PENDING_CONFIRMATION = "pending_confirmation"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Charge:
    """One invoice line's record. ``unit_price`` and ``amount_minor`` are in minor units.

    ``ledger_entry_id`` is of the entry that billing it posts, if it does.
    """

    id: UUID
    charge_type: ChargeType
    component_id: UUID | None
    description: str
    quantity: Decimal
    unit_price: Decimal
    amount_minor: int
    ledger_entry_id: UUID | None = None


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
    """Everything that billing one period writes.

    ``total_minor`` is what is invoiced, ``receivable_minor`` what of it nobody has paid yet, and
    ``surplus_minor`` what becomes a new credit. ``expiries`` are credits with what is left of them.
    """

    calculation_run_id: UUID
    subscription: Subscription
    period: BillingPeriod
    charges: tuple[Charge, ...]
    calculations: tuple[Calculation, ...]
    total_minor: int
    invoice_request: InvoiceRequest | None
    applications: tuple[NewApplication, ...] = ()
    expiries: tuple[tuple[UsageCredit, int], ...] = ()
    surplus_minor: int = 0
    receivable_minor: int = 0

    @property
    def posts_entries(self) -> bool:
        """Whether billing adds to the ledger: usage was posted as it arrived."""
        return bool(
            self.recurring_charges or self.applications or self.expiries or self.surplus_minor
        )

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
    credits_: PeriodCredits,
    *,
    billed_at: datetime,
) -> PeriodBill:
    """Compute the bill of one period; ``tallies`` are its aggregates by component.

    Raises AmountOutOfRange where the total does not fit, and UsageDiffersFromLedger where the
    aggregates contradict their own quantities.
    """
    charges = [] if period.is_stub else _recurring_charges(version)
    billed: list[tuple[Component, Decimal, int]] = []
    for component in version.components:
        tally = tallies.get(component.id)
        if period.is_stub and tally is None:
            continue
        quantity = tally.quantity if tally else ZERO
        amount_minor = _rated_amount(component, tally, quantity)
        charges.append(_usage_charge(component, quantity, amount_minor))
        billed.append((component, quantity, amount_minor))
    charges += _deficit_charges(period.receivable_minor + credits_.prior_minor)
    gross_minor = checked_amount(sum(charge.amount_minor for charge in charges))
    applications = _apply(credits_, period, charges, billed, gross_minor=gross_minor)
    applied_minor = sum(application.amount_minor for application in applications)
    charges += _credit_charges(gross_minor, credits_.prior_credits_minor() + applied_minor)
    total_minor = sum(charge.amount_minor for charge in charges)
    owed_minor = gross_minor - credits_.prior_minor - applied_minor
    return PeriodBill(
        calculation_run_id=identifiers.new_id(),
        subscription=subscription,
        period=period,
        charges=tuple(charges),
        calculations=tuple(_calculations(billed, credits_, applications)),
        total_minor=total_minor,
        invoice_request=_invoice_request(
            scope, subscription, period, charges, total_minor=total_minor, billed_at=billed_at
        ),
        applications=tuple(applications),
        expiries=tuple(credits_.book.over_by(min(period.period_end, billed_at))),
        surplus_minor=max(0, -owed_minor),
        receivable_minor=max(0, owed_minor),
    )


def _apply(
    credits_: PeriodCredits,
    period: BillingPeriod,
    charges: Sequence[Charge],
    billed: Sequence[tuple[Component, Decimal, int]],
    *,
    gross_minor: int,
) -> list[NewApplication]:
    """Let credits pay the period: its segments in turn, the last one up to what is left to pay."""
    if not credits_.book.credits:
        return []
    components = [component for component, _, _ in billed]
    usage = _usage_by_segment(credits_, billed)
    *earlier, last = segments_of(period, credits_.cuts, usage, credits_.prior)
    applications = consume(credits_.book, period, earlier, components)
    applied_minor = sum(application.amount_minor for application in applications)
    demands = [
        ChargeDemand(charge.amount_minor, charge.ledger_entry_id)
        for charge in charges
        if charge.charge_type is not ChargeType.USAGE
    ]
    return applications + consume_last(
        credits_.book,
        period,
        last,
        components,
        unpaid_charges(demands, credits_.prior),
        limit_minor=max(0, gross_minor - credits_.prior_minor - applied_minor),
    )


def _usage_by_segment(
    credits_: PeriodCredits, billed: Sequence[tuple[Component, Decimal, int]]
) -> Mapping[tuple[UUID, int], int]:
    """What the usage of each segment costs; all in all it is what is billed."""
    if credits_.usage is None:
        return {(component.id, 0): amount_minor for component, _, amount_minor in billed}
    for component, _, amount_minor in billed:
        parts = (minor for (owner, _), minor in credits_.usage.items() if owner == component.id)
        _require_same(component, charge=amount_minor, rated=sum(parts))
    return credits_.usage


def _deficit_charges(deficit_minor: int) -> list[Charge]:
    """What the ledger charged to the period when a credit could not give back what it had to."""
    if deficit_minor <= 0:
        return []
    return [single_charge(ChargeType.CREDIT_DEFICIT, "Credit taken back", deficit_minor)]


def _credit_charges(gross_minor: int, credited_minor: int) -> list[Charge]:
    """The lines about credits: what they paid, and what a negative total leaves for later."""
    lines = []
    if credited_minor != 0:
        lines.append(single_charge(ChargeType.CREDIT, "Credits applied", -credited_minor))
    if gross_minor < credited_minor:
        carried_minor = credited_minor - gross_minor
        lines.append(single_charge(ChargeType.CARRIED, "Carried to credit", carried_minor))
    return lines


def single_charge(charge_type: ChargeType, description: str, amount_minor: int) -> Charge:
    """Return a charge of one unit."""
    return Charge(
        id=identifiers.new_id(),
        charge_type=charge_type,
        component_id=None,
        description=description,
        quantity=Decimal(1),
        unit_price=Decimal(amount_minor),
        amount_minor=amount_minor,
    )


def _recurring_charges(version: PlanVersion) -> list[Charge]:
    if version.base_price_minor == 0:
        return []
    label = f"{interval_label(version.interval)} subscription - {version.name}"
    charge = single_charge(ChargeType.RECURRING, label, version.base_price_minor)
    return [replace(charge, ledger_entry_id=identifiers.new_id())]


def _rated_amount(component: Component, tally: UsageTally | None, quantity: Decimal) -> int:
    """The charge of the quantity, which must be what the ledger holds for it."""
    amount_minor = charge_minor(component, quantity)
    rated_minor = tally.rated_minor if tally else 0
    _require_same(component, charge=amount_minor, rated=rated_minor)
    return amount_minor


def _require_same(component: Component, *, charge: int, rated: int) -> None:
    if rated != charge:
        raise UsageDiffersFromLedger(
            component_id=identifiers.to_typeid(identifiers.COMPONENT, component.id),
            charge_minor=charge,
            rated_minor=rated,
        )


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


def _calculations(
    billed: Iterable[tuple[Component, Decimal, int]],
    credits_: PeriodCredits,
    applications: Sequence[NewApplication],
) -> Iterator[Calculation]:
    for component, quantity, amount_minor in billed:
        applied_minor = sum(
            application.amount_minor
            for application in applications
            if application.component is not None and application.component.id == component.id
        )
        yield Calculation(
            id=identifiers.new_id(),
            component_id=component.id,
            usage_meter_id=component.usage_meter_id,
            total_quantity=quantity,
            billable_quantity=billable_units(component, quantity),
            unit_price=component.unit_price,
            total_raw_usage_minor=amount_minor,
            credits_applied_minor=credits_.prior_credits_minor(component.id) + applied_minor,
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
