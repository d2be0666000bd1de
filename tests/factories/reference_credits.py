"""The credits of the reference: which pay what of a billing period, and in which order.

Credits are consumed in event time. A period is cut wherever a credit begins or ends; in each
segment the credits that live through all of it pay in order, components in the plan's order.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple, TypeAlias

CHARGES = None
"""Stands for the charges of a period where otherwise a component is named."""

Demands: TypeAlias = Mapping[tuple[int, int | None], int]
"""What is to be paid, by number of segment, and component or CHARGES."""

_NEVER = datetime.max.replace(tzinfo=UTC)


class Segment(NamedTuple):
    """A part of a billing period that no credit's beginning or end divides."""

    start: datetime
    end: datetime


@dataclass
class Credit:
    """One grant with what is left of it."""

    number: int
    is_paid: bool
    issued: int
    effective_at: datetime
    expires_at: datetime | None
    issued_at: datetime
    priority: int = 0
    covers_charges: bool = False
    period: int | None = None
    component: int | None = None
    remaining: int = 0
    held: int = 0
    voided_at: datetime | None = None
    expired_at: datetime | None = None

    def is_over(self, at: datetime) -> bool:
        """Whether its time is over, whatever the books say."""
        return self.expires_at is not None and self.expires_at <= at

    def pays(self, component: int | None) -> bool:
        """Whether it may pay a component, or the charges."""
        if component is CHARGES:
            return self.component is None and (self.is_paid or self.covers_charges)
        return self.component in (None, component)

    @property
    def rank(self) -> tuple[bool, bool, int, datetime, bool, datetime, int]:
        """Its place in the order of consumption."""
        return (
            self.period is None,
            self.component is None,
            self.priority,
            self.expires_at or _NEVER,
            self.is_paid,
            self.issued_at,
            self.number,
        )

    @property
    def status(self) -> str:
        """What became of it."""
        if self.voided_at is not None:
            return "voided"
        if self.expired_at is not None:
            return "expired"
        value = self.remaining + self.held
        if value == 0:
            return "fully_used"
        return "partially_used" if value < self.issued else "available"


@dataclass
class Application:
    """One use of a credit, for usage between two moments; a settlement's has none.

    ``reversing`` is what pending refunds are about to take back of it.
    """

    credit: int
    kind: str
    period: int
    component: int | None
    amount: int
    since: datetime | None = None
    until: datetime | None = None
    reversed: int = 0
    reversing: int = 0

    @property
    def live(self) -> int:
        """What of it still pays."""
        return self.amount - self.reversed

    @property
    def span(self) -> tuple[datetime, datetime]:
        """Its moments, to sort by: those without come last."""
        return self.since or _NEVER, self.until or _NEVER

    def overlaps(self, segment: Segment) -> bool:
        """Whether it paid usage of between two moments, and of a segment among it."""
        if self.since is None or self.until is None:
            return False
        return self.since < segment.end and segment.start < self.until


class Cost(NamedTuple):
    """What one usage event added to the charge of its component, or a correction of it changed."""

    component: int
    at: datetime
    amount: int


class Taking(NamedTuple):
    """What one credit pays of one demand."""

    credit: Credit
    segment: Segment
    component: int | None
    amount: int


def segments_of(start: datetime, end: datetime, credits_: Iterable[Credit]) -> list[Segment]:
    """Cut a period at all beginnings and ends of credits strictly inside it."""
    moments = {moment for credit in credits_ for moment in (credit.effective_at, credit.expires_at)}
    cuts = sorted(moment for moment in moments if moment is not None and start < moment < end)
    return [Segment(*pair) for pair in zip([start, *cuts], [*cuts, end], strict=True)]


def number_at(segments: Sequence[Segment], moment: datetime) -> int:
    """The segment that usage of a moment counts in: the first before the period, the last after."""
    return max((n for n, segment in enumerate(segments) if segment.start <= moment), default=0)


def demands_of(costs: Iterable[Cost], segments: Sequence[Segment]) -> Demands:
    """Sum costs by segment and component.

    A correction is rated against other events' units, so that a segment may come out below zero:
    that is set off against the segments after it, then against those before it, the nearest first.
    """
    demands: Counter[tuple[int, int | None]] = Counter()
    for cost in costs:
        demands[number_at(segments, cost.at), cost.component] += cost.amount
    negative = [key for key, amount in demands.items() if amount < 0]
    for number, component in sorted(negative, key=lambda key: key[0]):
        later = range(number + 1, len(segments))
        for other in [*later, *reversed(range(number))]:
            amount = min(-demands[number, component], max(0, demands[other, component]))
            demands[number, component] += amount
            demands[other, component] -= amount
    return demands


def excess_of(
    costs: Iterable[Cost], segments: Sequence[Segment], applications: Iterable[Application]
) -> list[tuple[Application, int]]:
    """What applications pay more than there is within their moments; the oldest keep most.

    Those that end first choose first: who may pay later usage as well leaves them what they can
    pay. A settlement pays whatever its period costs, so it has no moments and no excess.
    """
    demands = dict(demands_of(costs, segments))
    excess: list[tuple[Application, int]] = []
    for application in sorted(applications, key=lambda each: each.span[::-1]):
        if application.component is CHARGES or application.kind == "settlement":
            continue
        left = application.live
        for number, segment in enumerate(segments):
            if application.overlaps(segment):
                left -= _cover(demands, (number, application.component), left)
        if left:
            excess.append((application, left))
    return excess


def _cover(
    demands: dict[tuple[int, int | None], int], key: tuple[int, int | None], amount: int
) -> int:
    """Pay a demand as far as there is one, and return how far that was."""
    paid = min(amount, demands.get(key, 0))
    if paid > 0:
        demands[key] -= paid
    return max(0, paid)


def unpaid_demands(
    costs: Iterable[Cost], segments: Sequence[Segment], applications: Iterable[Application]
) -> Demands:
    """What applications have not paid of the costs, by segment and component.

    An application pays usage between its moments, the oldest first; one without them pays what
    the others leave. So does what is too much between them: the usage there was paid by others
    before a credit that begins in between divided it. A settlement may be too much altogether,
    once usage was corrected.
    """
    demands = dict(demands_of(costs, segments))
    for application in sorted(applications, key=lambda each: each.span):
        if application.component is CHARGES:
            continue
        left = application.live
        within = [n for n, segment in enumerate(segments) if application.overlaps(segment)]
        for number in [*within, *range(len(segments))]:
            left -= _cover(demands, (number, application.component), left)
        is_settlement = application.kind == "settlement"
        assert left == 0 or is_settlement, "paid for usage that is not there"
    return demands


def is_eligible(credit: Credit, segments: Sequence[Segment], number: int) -> bool:
    """Whether a credit lives through a segment."""
    segment = segments[number]
    ends_later = credit.expires_at is None or credit.expires_at >= segment.end
    return credit.effective_at <= segment.start and ends_later and credit.remaining > 0


def take(
    credits_: Iterable[Credit],
    segments: Sequence[Segment],
    demands: Demands,
    *,
    period: int,
    components: Sequence[int],
    limit: int,
) -> list[Taking]:
    """Let credits pay demands, segment by segment; ``limit`` is what may be paid at the end."""
    left = dict(demands)
    takings: list[Taking] = []
    in_order = sorted(credits_, key=lambda credit: credit.rank)
    for number, segment in enumerate(segments):
        is_last = number == len(segments) - 1
        for credit in in_order:
            if credit.period not in (None, period) or not is_eligible(credit, segments, number):
                continue
            for component in [*components, CHARGES] if is_last else components:
                if not credit.pays(component):
                    continue
                amount = min(credit.remaining, left.get((number, component), 0))
                amount = min(amount, limit) if is_last else amount
                if amount > 0:
                    left[number, component] -= amount
                    limit -= amount
                    credit.remaining -= amount
                    takings.append(Taking(credit, segment, component, amount))
    return takings
