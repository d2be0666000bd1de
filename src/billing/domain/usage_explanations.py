"""Why a line of usage is what it is: terms, tiers, rounding, events, corrections, credits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from billing.domain.billing import CalculationType
from billing.domain.calculations import KeptCalculation
from billing.domain.catalog import Component
from billing.domain.charges import KeptCharge
from billing.domain.credit_explanations import CreditUse
from billing.domain.money import EXACT, round_half_up
from billing.domain.pages import Page
from billing.domain.proofs import ExplainedEntry, FiguresContradict, require_equal
from billing.domain.rating import ZERO, charge_minor

_HALF: Final = Decimal("0.5")


class PriceTier(NamedTuple):
    """The units of a quantity between two bounds, and the price of one in minor units.

    ``up_to_quantity`` None is no bound.
    """

    from_quantity: Decimal
    up_to_quantity: Decimal | None
    units: Decimal
    unit_price: Decimal

    @property
    def unrounded_minor(self) -> Decimal:
        """What they cost, exactly."""
        return EXACT.multiply(self.units, self.unit_price)


@dataclass(frozen=True, slots=True)
class UsageRating:
    """How a quantity becomes an amount in minor units; raises FiguresContradict."""

    quantity: Decimal
    tiers: tuple[PriceTier, ...]
    amount_minor: int

    def __post_init__(self) -> None:
        require_equal("units", quantity=self.quantity, tiers=_sum(t.units for t in self.tiers))
        require_equal(
            "tiers", amount=self.amount_minor, rounded=round_half_up(self.unrounded_minor)
        )
        if abs(self.residue_minor) > _HALF:
            raise FiguresContradict("residue", amount=self.amount_minor, residue=self.residue_minor)

    @property
    def unrounded_minor(self) -> Decimal:
        """What the tiers cost, exactly."""
        return _sum(tier.unrounded_minor for tier in self.tiers)

    @property
    def residue_minor(self) -> Decimal:
        """What rounding adds."""
        return EXACT.subtract(Decimal(self.amount_minor), self.unrounded_minor)


def rate(component: Component, quantity: Decimal) -> UsageRating:
    """Return how a component prices a quantity of one period."""
    return UsageRating(quantity, _tiers(component, quantity), charge_minor(component, quantity))


def _tiers(component: Component, quantity: Decimal) -> tuple[PriceTier, ...]:
    included = component.included_units
    units = min(quantity, included)
    charged = PriceTier(included, None, EXACT.subtract(quantity, units), component.unit_price)
    if included == 0:
        return (charged,)
    return (PriceTier(ZERO, included, units, ZERO), charged)


class UsageTotals(NamedTuple):
    """What events and corrections come to, in the order of the statements' columns."""

    event_count: int
    event_quantity: Decimal
    event_cost_minor: int
    correction_count: int
    correction_quantity: Decimal
    correction_cost_minor: int

    @property
    def quantity(self) -> Decimal:
        """What counts."""
        return EXACT.add(self.event_quantity, self.correction_quantity)

    @property
    def cost_minor(self) -> int:
        """What it costs."""
        return self.event_cost_minor + self.correction_cost_minor


class ExplainedCorrection(NamedTuple):
    """A correction with its entry; ``cost_change_minor`` is positive where more is owed."""

    id: UUID
    usage_event_id: UUID
    is_void: bool
    quantity_before: Decimal
    quantity_after: Decimal
    cost_change_minor: int
    reason: str
    ledger_entry_id: UUID
    ledger_transaction_id: UUID
    corrected_at: datetime


class ExplainedUsageEvent(NamedTuple):
    """An event with what it cost when it came, its entry, and what was corrected of it since."""

    id: UUID
    idempotency_key: str
    event_timestamp: datetime
    quantity: Decimal
    cost_minor: int
    is_late: bool
    ledger_entry_id: UUID
    ledger_transaction_id: UUID
    corrections: tuple[ExplainedCorrection, ...] = ()


TakenInUsage = ExplainedUsageEvent | ExplainedCorrection
"""What a recalculation takes in: a held event, or a correction."""


@dataclass(frozen=True, slots=True)
class UsageExplanation:
    """A line of usage that a billing run made.

    ``superseded`` is the estimate before the calculation, ``superseding`` are the recalculations
    since, in order.
    """

    component: Component
    rating: UsageRating
    calculation: KeptCalculation
    superseded: tuple[KeptCalculation, ...]
    superseding: tuple[KeptCalculation, ...]
    totals: UsageTotals
    events: Page[ExplainedUsageEvent]
    credit_uses: tuple[CreditUse, ...]

    @property
    def credits_applied_minor(self) -> int:
        """What credits pay of it."""
        return sum(use.paid_minor for use in self.credit_uses)

    @property
    def net_minor(self) -> int:
        """What they leave."""
        return self.rating.amount_minor - self.credits_applied_minor


@dataclass(frozen=True, slots=True)
class UsageChangeExplanation:
    """A line of usage that a recalculation made: what changed."""

    component: Component
    old_calculation: KeptCalculation | None
    new_calculation: KeptCalculation
    old_rating: UsageRating
    new_rating: UsageRating
    totals: UsageTotals
    taken_in: Page[TakenInUsage]
    billing_adjustment: ExplainedEntry | None


def explain_usage(
    charge: KeptCharge,
    component: Component,
    calculations: Sequence[KeptCalculation],
    totals: UsageTotals,
    events: Page[ExplainedUsageEvent],
    credit_uses: Iterable[CreditUse],
) -> UsageExplanation:
    """Return the explanation of a billing run's line; raises FiguresContradict.

    ``calculations`` are the component's in the period, in the order they were made.
    """
    calculation = _made_with(charge, calculations)
    explained = UsageExplanation(
        component=component,
        rating=rate(component, calculation.total_quantity),
        calculation=calculation,
        superseded=tuple(c for c in calculations if c.superseded_by_id == calculation.id),
        superseding=_successors(calculation, calculations),
        totals=totals,
        events=events,
        credit_uses=tuple(credit_uses),
    )
    require_equal(
        f"costs of {charge.typeid}",
        line=charge.amount_minor,
        calculation=calculation.total_raw_usage_minor,
        tiers=explained.rating.amount_minor,
        events_and_corrections=totals.cost_minor,
    )
    require_equal(
        f"quantities of {charge.typeid}",
        calculation=calculation.total_quantity,
        events_and_corrections=totals.quantity,
    )
    require_equal(
        f"charged units of {charge.typeid}",
        line=charge.quantity,
        calculation=calculation.billable_quantity,
        last_tier=explained.rating.tiers[-1].units,
    )
    require_equal(
        f"credits of {charge.typeid}",
        calculation=calculation.credits_applied_minor,
        applications=explained.credits_applied_minor,
    )
    for event in events.items:
        _require_chain(event)
    return explained


def explain_usage_change(
    charge: KeptCharge,
    component: Component,
    calculations: Sequence[KeptCalculation],
    totals: UsageTotals,
    taken_in: Page[TakenInUsage],
    billing_adjustment: ExplainedEntry | None,
) -> UsageChangeExplanation:
    """Return the explanation of a recalculation's line; raises FiguresContradict."""
    new = _made_with(charge, calculations)
    old = next((c for c in calculations if c.superseded_by_id == new.id), None)
    explained = UsageChangeExplanation(
        component=component,
        old_calculation=old,
        new_calculation=new,
        old_rating=rate(component, old.total_quantity if old else ZERO),
        new_rating=rate(component, new.total_quantity),
        totals=totals,
        taken_in=taken_in,
        billing_adjustment=billing_adjustment,
    )
    old_minor, new_minor = explained.old_rating.amount_minor, explained.new_rating.amount_minor
    require_equal(
        f"costs before {charge.typeid}",
        calculation=old.total_raw_usage_minor if old else 0,
        tiers=old_minor,
    )
    require_equal(
        f"costs after {charge.typeid}", calculation=new.total_raw_usage_minor, tiers=new_minor
    )
    require_equal(
        f"changes of cost of {charge.typeid}",
        line=charge.amount_minor,
        calculations=new_minor - old_minor,
        taken_in=totals.cost_minor,
        billing_adjustment=-billing_adjustment.amount_minor if billing_adjustment else 0,
    )
    units = explained.new_rating.tiers[-1].units, explained.old_rating.tiers[-1].units
    require_equal(
        f"charged units of {charge.typeid}", line=charge.quantity, tiers=EXACT.subtract(*units)
    )
    require_equal(
        f"changes of quantity of {charge.typeid}",
        calculations=EXACT.subtract(explained.new_rating.quantity, explained.old_rating.quantity),
        taken_in=totals.quantity,
    )
    return explained


def require_whole(totals: UsageTotals, usages: Sequence[TakenInUsage]) -> None:
    """Raise FiguresContradict unless the totals are those of all usages, which are not paged."""
    events = [usage for usage in usages if isinstance(usage, ExplainedUsageEvent)]
    alone = [usage for usage in usages if isinstance(usage, ExplainedCorrection)]
    corrections = [correction for event in events for correction in event.corrections] + alone
    changes = (EXACT.subtract(c.quantity_after, c.quantity_before) for c in corrections)
    found = UsageTotals(
        len(events),
        _sum(event.quantity for event in events),
        sum(event.cost_minor for event in events),
        len(corrections),
        _sum(changes),
        sum(correction.cost_change_minor for correction in corrections),
    )
    if found != totals:
        raise FiguresContradict("usage", totals=totals, found=found)


def _made_with(charge: KeptCharge, calculations: Iterable[KeptCalculation]) -> KeptCalculation:
    for calculation in calculations:
        if calculation.calculation_run_id == charge.calculation_run_id:
            return calculation
    raise FiguresContradict("calculations", line=charge.typeid, calculation=None)


def _successors(
    calculation: KeptCalculation, calculations: Sequence[KeptCalculation]
) -> tuple[KeptCalculation, ...]:
    """Follow the names of successors; each is at most once in the chain."""
    by_id = {c.id: c for c in calculations if c.calculation_type is not _ESTIMATE}
    chain: list[KeptCalculation] = []
    following = calculation.superseded_by_id
    while following in by_id:
        successor = by_id.pop(following)
        chain.append(successor)
        following = successor.superseded_by_id
    return tuple(chain)


def _require_chain(event: ExplainedUsageEvent) -> None:
    """Each correction begins where the one before it ended."""
    quantity = event.quantity
    for correction in event.corrections:
        require_equal("corrections", before=correction.quantity_before, counted=quantity)
        quantity = correction.quantity_after


def _sum(values: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for value in values:
        total = EXACT.add(total, value)
    return total


_ESTIMATE: Final = CalculationType.INTERIM_ESTIMATE
