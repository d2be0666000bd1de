"""Consumes credits in event time, so that the result does not depend on when a job runs.

A period's usage is cut at the effective and expiry times of the subscription's credits. In each
segment the eligible credits are consumed in their order; what was applied before is not paid twice.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final, NamedTuple
from uuid import UUID

from billing.domain import identifiers
from billing.domain.catalog import Component
from billing.domain.credits import CreditApplicationKind, UsageCredit
from billing.domain.periods import BillingPeriod

_NEVER: Final = datetime.max.replace(tzinfo=UTC)


class Coverage(NamedTuple):
    """What an earlier application still pays of a period, in minor units.

    ``component_id`` None is of charges; without bounds it pays the period's usage, oldest first.
    """

    kind: CreditApplicationKind
    component_id: UUID | None
    usage_from: datetime | None
    usage_until: datetime | None
    amount_minor: int


class ChargeDemand(NamedTuple):
    """A charge to pay, with its entry where it has one."""

    amount_minor: int
    ledger_entry_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class NewApplication:
    """A credit paying the usage of a component in a segment, or a charge; in minor units.

    ``component`` is None for charges, the bounds are None where it does not matter when the usage
    was.
    """

    id: UUID
    credit: UsageCredit
    component: Component | None
    amount_minor: int
    usage_from: datetime | None = None
    usage_until: datetime | None = None
    applied_to_ledger_entry_id: UUID | None = None


@dataclass(slots=True)
class Segment:
    """A part of a period in which the same credits are in effect; ``uncovered`` by component."""

    start: datetime
    end: datetime
    uncovered: dict[UUID, int] = field(default_factory=dict)

    def cover(self, component_id: UUID, amount_minor: int) -> int:
        """Take usage as paid, as far as there is some; return what is left of the amount."""
        taken = max(0, min(self.uncovered.get(component_id, 0), amount_minor))
        if taken > 0:
            self.uncovered[component_id] -= taken
        return amount_minor - taken

    def overlaps(self, start: datetime, end: datetime) -> bool:
        """Whether the segment shares time with a span."""
        return self.start < end and start < self.end


def cuts_within(period: BillingPeriod, moments: Iterable[datetime]) -> list[datetime]:
    """Return the moments that divide a period, in order."""
    return sorted({m for m in moments if period.period_start < m < period.period_end})


def segments_of(
    period: BillingPeriod,
    cuts: Sequence[datetime],
    usage: Mapping[tuple[UUID, int], int],
    prior: Iterable[Coverage] = (),
) -> list[Segment]:
    """Return a period's segments with the usage that nothing has paid yet.

    ``usage`` is the cost by component and segment number; ``segment_number`` tells the number.
    """
    bounds = [period.period_start, *cuts, period.period_end]
    segments = [Segment(start, end) for start, end in pairwise(bounds)]
    for (component_id, number), amount_minor in usage.items():
        segments[number].uncovered[component_id] = amount_minor
    for component_id in {owner for (owner, _), amount_minor in usage.items() if amount_minor < 0}:
        _set_off(segments, component_id)
    for coverage in sorted(prior, key=_bounded_first):
        if coverage.component_id is not None:
            _take_as_paid(segments, coverage, coverage.component_id)
    return segments


def segment_number(cuts: Sequence[datetime], moment: datetime) -> int:
    """Return the number of the segment that usage of a moment is in.

    Usage from before its period is in the first, usage from after it in the last.
    """
    return bisect_right(cuts, moment)


def _set_off(segments: Sequence[Segment], component_id: UUID) -> None:
    """Set usage below zero off against that of the segments after it, then of those before.

    A correction takes units away that other events were rated for.
    """
    for number, segment in enumerate(segments):
        left = -segment.uncovered.get(component_id, 0)
        if left <= 0:
            continue
        segment.uncovered[component_id] = 0
        for other in [*segments[number + 1 :], *reversed(segments[:number])]:
            left = other.cover(component_id, left)


def _bounded_first(coverage: Coverage) -> tuple[datetime, datetime]:
    return coverage.usage_from or _NEVER, coverage.usage_until or _NEVER


def _take_as_paid(segments: Sequence[Segment], coverage: Coverage, component_id: UUID) -> None:
    left = coverage.amount_minor
    if coverage.usage_from is not None and coverage.usage_until is not None:
        for segment in segments:
            if segment.overlaps(coverage.usage_from, coverage.usage_until):
                left = segment.cover(component_id, left)
    for segment in segments:
        left = segment.cover(component_id, left)


def _order(credit: UsageCredit) -> tuple[Any, ...]:
    return (
        credit.billing_period_id is None,
        credit.component_id is None and credit.usage_meter_id is None,
        credit.priority,
        credit.expires_at or _NEVER,
        credit.is_paid,
        credit.issued_at,
        credit.id,
    )


@dataclass(slots=True)
class CreditBook:
    """The credits of one locked subscription of which something is left, and what is left."""

    credits: list[UsageCredit]
    remaining: dict[UUID, int] = field(init=False)

    def __post_init__(self) -> None:
        self.credits.sort(key=_order)
        self.remaining = {credit.id: credit.remaining_minor for credit in self.credits}

    def eligible(self, period: BillingPeriod, segment: Segment) -> Iterator[UsageCredit]:
        """Yield the credits that pay usage of a segment, in their order."""
        for credit in self.credits:
            if (
                credit.billing_period_id in (None, period.id)
                and credit.effective_at <= segment.start
                and (credit.expires_at is None or credit.expires_at >= segment.end)
            ):
                yield credit

    def take(self, credit: UsageCredit, wanted_minor: int) -> int:
        """Take as much of a credit as there is, and return how much that was."""
        taken = min(self.remaining[credit.id], wanted_minor)
        self.remaining[credit.id] -= taken
        return taken

    def over_by(self, moment: datetime) -> Iterator[tuple[UsageCredit, int]]:
        """Yield the credits whose time is over by a moment, with what is left of them."""
        for credit in self.credits:
            if credit.is_over(moment) and self.remaining[credit.id] > 0:
                yield credit, self.remaining[credit.id]


def pays(credit: UsageCredit, component: Component) -> bool:
    """Whether the scope of a credit lets it pay a component's usage."""
    return credit.component_id in (None, component.id) and credit.usage_meter_id in (
        None,
        component.usage_meter_id,
    )


def pays_charges(credit: UsageCredit) -> bool:
    """Whether a credit pays charges too: paid ones do, others if their grant says so."""
    is_general = credit.component_id is None and credit.usage_meter_id is None
    return is_general and (credit.is_paid or credit.covers_charges)


def consume(
    book: CreditBook,
    period: BillingPeriod,
    segments: Iterable[Segment],
    components: Sequence[Component],
) -> list[NewApplication]:
    """Pay the usage of segments, in order of time; without a cap."""
    return [
        application
        for segment in segments
        if any(segment.uncovered.values())
        for credit in book.eligible(period, segment)
        for application in _pay_usage(book, credit, segment, components, limit_minor=None)
    ]


def consume_last(
    book: CreditBook,
    period: BillingPeriod,
    segment: Segment,
    components: Sequence[Component],
    charges: Sequence[ChargeDemand],
    *,
    limit_minor: int,
) -> list[NewApplication]:
    """Pay the last segment's usage and the charges of its period, up to a limit in all."""
    applications: list[NewApplication] = []
    unpaid = [charge.amount_minor for charge in charges]
    for credit in book.eligible(period, segment):
        paid = _pay_usage(book, credit, segment, components, limit_minor=limit_minor)
        limit_minor -= sum(application.amount_minor for application in paid)
        applications += paid
        if not pays_charges(credit):
            continue
        for number, charge in enumerate(charges):
            amount_minor = book.take(credit, max(0, min(unpaid[number], limit_minor)))
            if amount_minor > 0:
                unpaid[number] -= amount_minor
                limit_minor -= amount_minor
                applications.append(_to_charge(credit, charge, amount_minor))
    return applications


def _pay_usage(
    book: CreditBook,
    credit: UsageCredit,
    segment: Segment,
    components: Sequence[Component],
    *,
    limit_minor: int | None,
) -> list[NewApplication]:
    applications = []
    for component in components:
        wanted_minor = segment.uncovered.get(component.id, 0)
        if limit_minor is not None:
            wanted_minor = min(wanted_minor, limit_minor)
        if wanted_minor <= 0 or not pays(credit, component):
            continue
        amount_minor = book.take(credit, wanted_minor)
        if amount_minor > 0:
            segment.cover(component.id, amount_minor)
            if limit_minor is not None:
                limit_minor -= amount_minor
            applications.append(
                NewApplication(
                    identifiers.new_id(),
                    credit,
                    component,
                    amount_minor,
                    usage_from=segment.start,
                    usage_until=segment.end,
                )
            )
    return applications


def _to_charge(credit: UsageCredit, charge: ChargeDemand, amount_minor: int) -> NewApplication:
    return NewApplication(
        identifiers.new_id(),
        credit,
        None,
        amount_minor,
        applied_to_ledger_entry_id=charge.ledger_entry_id,
    )


def unpaid_charges(
    charges: Iterable[ChargeDemand], prior: Iterable[Coverage]
) -> list[ChargeDemand]:
    """Return what earlier applications leave of charges, in their order."""
    paid = sum(coverage.amount_minor for coverage in prior if coverage.component_id is None)
    unpaid = []
    for charge in charges:
        taken = min(paid, max(0, charge.amount_minor))
        paid -= taken
        unpaid.append(charge._replace(amount_minor=charge.amount_minor - taken))
    return unpaid


@dataclass(slots=True)
class PeriodCredits:
    """What there is to pay a period with, and what was paid of it before.

    ``usage`` is the cost by component and segment; None where nothing divides the period.
    """

    book: CreditBook
    cuts: Sequence[datetime] = ()
    usage: Mapping[tuple[UUID, int], int] | None = None
    prior: Sequence[Coverage] = ()

    @property
    def prior_minor(self) -> int:
        """All that was applied before."""
        return sum(coverage.amount_minor for coverage in self.prior)

    def prior_credits_minor(self, component_id: UUID | None = None) -> int:
        """What credits paid before, of one component or in all; settlements are payments."""
        return sum(
            coverage.amount_minor
            for coverage in self.prior
            if coverage.kind is not CreditApplicationKind.SETTLEMENT
            and component_id in (None, coverage.component_id)
        )
