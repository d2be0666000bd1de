"""What a change of usage does to the credits that pay it: what is too much, and what it pays next.

Applications are laid over the usage again, each within its own bounds; what does not fit any more
is released, and pays other usage of the period before it goes back to its credit.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from billing.domain.catalog import Component
from billing.domain.credit_consumption import (
    Coverage,
    CreditBook,
    NewApplication,
    Segment,
    consume,
    consume_last,
    segments_of,
)
from billing.domain.credits import CreditApplicationKind, UsageCredit
from billing.domain.periods import BillingPeriod

_EVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LiveApplication:
    """An application with what of it still pays, in minor units.

    ``reversible_minor`` is less by what pending refunds are about to take back.
    """

    id: UUID
    usage_credit_id: UUID
    billing_period_id: UUID
    kind: CreditApplicationKind
    component_id: UUID | None
    usage_meter_id: UUID | None
    usage_from: datetime | None
    usage_until: datetime | None
    live_minor: int
    reversible_minor: int

    @property
    def is_settlement(self) -> bool:
        """Whether a payment of the period made it: that pays whatever the period costs."""
        return self.kind is CreditApplicationKind.SETTLEMENT

    def coverage(self, released_minor: int = 0) -> Coverage:
        """Return what it still pays."""
        return Coverage(
            self.kind,
            self.component_id,
            self.usage_from,
            self.usage_until,
            self.live_minor - released_minor,
        )


@dataclass(frozen=True, slots=True)
class CoveredPeriod:
    """A period's usage by component and segment, in minor units, and what pays it."""

    period: BillingPeriod
    components: Sequence[Component]
    cuts: Sequence[datetime]
    usage: Mapping[tuple[UUID, int], int]
    applications: Sequence[LiveApplication]


@dataclass(slots=True)
class Reassignment:
    """What changes: released applications with amounts, new ones, and what is left by credit."""

    releases: list[tuple[LiveApplication, int]] = field(default_factory=list)
    applications: list[NewApplication] = field(default_factory=list)
    returned: Counter[UUID] = field(default_factory=Counter)

    @property
    def released_minor(self) -> int:
        """All that is released."""
        return sum(amount_minor for _, amount_minor in self.releases)

    @property
    def applied_minor(self) -> int:
        """All that is applied anew."""
        return sum(application.amount_minor for application in self.applications)

    @property
    def change_minor(self) -> int:
        """What credits pay more than before."""
        return self.applied_minor - self.released_minor

    def component_change_minor(self, component_id: UUID) -> int:
        """What credits pay more than before of a component."""
        applied = sum(
            a.amount_minor
            for a in self.applications
            if a.component is not None and a.component.id == component_id
        )
        released = sum(amount for a, amount in self.releases if a.component_id == component_id)
        return applied - released


def find_releases(covered: CoveredPeriod) -> list[tuple[LiveApplication, int]]:
    """Return the applications that pay more than there is, with what is too much of each.

    Within its bounds, the oldest keeps most; those that end first choose first, so that nothing is
    released while all of it fits. Settlements, and what pays charges, stay.
    """
    segments = segments_of(covered.period, covered.cuts, covered.usage)
    releases = []
    for application in sorted(covered.applications, key=_first_to_end):
        component_id = application.component_id
        if application.is_settlement or component_id is None:
            continue
        left = application.live_minor
        for segment in _within(application, segments):
            left = segment.cover(component_id, left)
        if left > 0:
            releases.append((application, left))
    return releases


def reassign(
    covered: CoveredPeriod,
    releases: Sequence[tuple[LiveApplication, int]],
    credits_: Iterable[UsageCredit],
    *,
    until: datetime | None,
    owed_minor: int | None = None,
) -> Reassignment:
    """Let what is released, and what else credits have, pay the usage that nothing pays.

    ``credits_`` are the live ones and those that something is released to. In an open period only
    segments that end ``until`` a moment are paid now, None is none of them. With ``owed_minor``,
    what the period owes after the releases, all are, the last one up to what is left of that.
    """
    released = Counter[UUID]()
    for application, amount_minor in releases:
        released[application.id] += amount_minor
    book = CreditBook(list(credits_))
    freed = Counter[UUID]()
    for application, amount_minor in releases:
        freed[application.usage_credit_id] += amount_minor
    for credit_id, amount_minor in freed.items():
        book.remaining[credit_id] += amount_minor
    kept = [application.coverage(released[application.id]) for application in covered.applications]
    segments = segments_of(covered.period, covered.cuts, covered.usage, kept)
    if owed_minor is None:
        due = [segment for segment in segments if until is not None and segment.end <= until]
        applications = consume(book, covered.period, due, covered.components)
    else:
        *earlier, last = segments
        applications = consume(book, covered.period, earlier, covered.components)
        limit_minor = owed_minor - sum(application.amount_minor for application in applications)
        applications += consume_last(
            book,
            covered.period,
            last,
            covered.components,
            [],
            limit_minor=max(0, limit_minor),
        )
    returned = Counter(
        {credit_id: min(amount, book.remaining[credit_id]) for credit_id, amount in freed.items()}
    )
    return Reassignment(list(releases), applications, +returned)


def plan_settlement_release(
    covered: CoveredPeriod, moved: Reassignment, amount_minor: int
) -> list[tuple[LiveApplication, int]]:
    """Return which settlements give back an amount that the period has too much, and how much.

    First what pays more than a component costs now, then what pays charges, the newest first: what
    is released so leaves nothing unpaid that others would have to pay.
    """
    excess = _excess(covered, moved)
    newest_first = sorted(
        (a for a in covered.applications if a.is_settlement), key=lambda a: a.id, reverse=True
    )
    released: Counter[UUID] = Counter()
    left = amount_minor
    for application in newest_first:
        room = min(left, application.reversible_minor, excess[application.component_id])
        if application.component_id is not None and room > 0:
            released[application.id] += room
            excess[application.component_id] -= room
            left -= room
    for application in sorted(newest_first, key=lambda a: a.component_id is not None):
        room = min(left, application.reversible_minor - released[application.id])
        if room > 0:
            released[application.id] += room
            left -= room
    return [(a, released[a.id]) for a in newest_first if released[a.id] > 0]


def _excess(covered: CoveredPeriod, moved: Reassignment) -> Counter[UUID | None]:
    """What is paid of each component beyond what it costs, once credits have been moved."""
    excess: Counter[UUID | None] = Counter()
    for application in covered.applications:
        excess[application.component_id] += application.live_minor
    for component in covered.components:
        excess[component.id] += moved.component_change_minor(component.id)
    for (component_id, _), amount_minor in covered.usage.items():
        excess[component_id] -= amount_minor
    return excess


def _within(application: LiveApplication, segments: Sequence[Segment]) -> Sequence[Segment]:
    """Return the segments whose usage an application pays.

    Bounds outside a period that was cut since are where its usage is: in the last segment, or in
    the first.
    """
    start, end = application.usage_from, application.usage_until
    if start is None or end is None:
        return segments
    within = [segment for segment in segments if segment.overlaps(start, end)]
    return within or [segments[-1] if start >= segments[-1].end else segments[0]]


def _first_to_end(application: LiveApplication) -> tuple[datetime, datetime, UUID]:
    return application.usage_until or _EVER, application.usage_from or _EVER, application.id
