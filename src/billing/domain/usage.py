"""Usage events: what arrives, where it is counted, and what it costs."""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from billing.domain import identifiers
from billing.domain.catalog import Component
from billing.domain.errors import AmountOutOfRange
from billing.domain.money import EXACT, plain
from billing.domain.periods import BillingPeriod, OpenPeriods
from billing.domain.rating import ZERO, charge_minor
from billing.domain.subscriptions import Subscription, SubscriptionStatus

MAX_CLOCK_LEAD: Final = timedelta(hours=1)
"""How far ahead of the server's clock an event may lie."""


class UsageEventDisposition(StrEnum):
    """Where a stored event was counted: in its own period, or late in the oldest open one.

    Or it is held: it waits for a recalculation of its period, which is billed.
    """

    RATED = "rated"
    RATED_LATE = "rated_late"
    HELD = "held"


class UsageEventOutcome(StrEnum):
    """What became of one event of a call."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    REJECTED = "rejected"


class UsageEventInput(NamedTuple):
    """One fact of consumption as its sender tells it."""

    idempotency_key: str
    subscription_id: UUID
    usage_meter_id: UUID
    quantity: Decimal
    event_timestamp: datetime
    properties: Mapping[str, str]

    def payload_hash(self) -> bytes:
        """Digest of everything but the key: tells a repeat from a contradiction."""
        # Seconds as a double are exact to the microsecond for all times that there can be.
        moment = struct.pack("<d", self.event_timestamp.timestamp())
        parts = [plain(self.quantity)]
        for key in sorted(self.properties):
            # Lengths keep two different sets of pairs from reading the same.
            value = self.properties[key]
            parts.append(f"{len(key)}:{key}={len(value)}:{value}")
        fixed = self.subscription_id.bytes + self.usage_meter_id.bytes + moment
        return hashlib.blake2b(fixed + "\n".join(parts).encode(), digest_size=16).digest()


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """A stored fact of consumption with what became of it. ``cost_minor`` is zero or more.

    What is corrected is after all corrections; ``taken_in_at`` tells when a recalculation took a
    held event in.
    """

    id: UUID
    idempotency_key: str
    subscription_id: UUID
    usage_meter_id: UUID
    component_id: UUID
    billing_period_id: UUID
    quantity: Decimal
    event_timestamp: datetime
    properties: Mapping[str, str]
    disposition: UsageEventDisposition
    cost_minor: int
    currency: str
    ledger_entry_id: UUID
    received_at: datetime
    corrected_quantity: Decimal
    corrected_cost_minor: int
    is_voided: bool
    taken_in_at: datetime | None


class KnownUsageEvent(NamedTuple):
    """What tells a repeat of a known event from a contradiction."""

    id: UUID
    payload_hash: bytes
    quantity: Decimal
    event_timestamp: datetime


class UsageEventResult(NamedTuple):
    """The outcome of one event of a call; ``reason`` and ``message`` tell why it was not taken."""

    outcome: UsageEventOutcome
    usage_event_id: UUID | None = None
    reason: str = ""
    message: str = ""


class UsageRejected(Exception):
    """An event that cannot be taken, with a stable reason and a message for its sender."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def to_result(self) -> UsageEventResult:
        """Return the result of the event."""
        return UsageEventResult(UsageEventOutcome.REJECTED, None, self.reason, self.message)


@dataclass(slots=True)
class UsageTally:
    """The running aggregate of one (subscription, component, billing period).

    What is pending waits for a recalculation of a billed period: it counts on top of the rest.
    """

    id: UUID
    billing_period_id: UUID
    component: Component
    quantity: Decimal = ZERO
    rated_minor: int = 0
    event_count: int = 0
    pending_quantity: Decimal = ZERO
    pending_minor: int = 0
    pending_event_count: int = 0

    @property
    def has_pending(self) -> bool:
        """Whether a recalculation would take something in."""
        return bool(self.pending_quantity or self.pending_minor or self.pending_event_count)

    def add(self, quantity: Decimal) -> int:
        """Count an event and return what it adds to the charge; raises AmountOutOfRange."""
        cost_minor = self.correct(quantity)
        self.event_count += 1
        return cost_minor

    def correct(self, change: Decimal) -> int:
        """Change the quantity and return what that adds to the charge; raises AmountOutOfRange."""
        total = EXACT.add(self.quantity, change)
        charge = charge_minor(self.component, total)
        cost_minor = charge - self.rated_minor
        self.quantity = total
        self.rated_minor = charge
        return cost_minor

    def hold(self, quantity: Decimal) -> int:
        """Keep an event for a recalculation, and return what it will add to the charge.

        Raises AmountOutOfRange.
        """
        cost_minor = self.hold_correction(quantity)
        self.pending_event_count += 1
        return cost_minor

    def hold_correction(self, change: Decimal) -> int:
        """Keep a change of quantity for a recalculation, and return what it will add.

        Raises AmountOutOfRange.
        """
        pending = EXACT.add(self.pending_quantity, change)
        charge = charge_minor(self.component, EXACT.add(self.quantity, pending))
        cost_minor = charge - self.rated_minor - self.pending_minor
        self.pending_quantity = pending
        self.pending_minor += cost_minor
        return cost_minor

    def take_in(self) -> int:
        """Count what is pending, and return what that adds to the charge."""
        cost_minor = self.pending_minor
        self.quantity = EXACT.add(self.quantity, self.pending_quantity)
        self.rated_minor += self.pending_minor
        self.event_count += self.pending_event_count
        self.pending_quantity, self.pending_minor, self.pending_event_count = ZERO, 0, 0
        return cost_minor


class RatedUsage(NamedTuple):
    """Where an event is counted and what it costs, in minor units."""

    tally: UsageTally
    disposition: UsageEventDisposition
    cost_minor: int


@dataclass(slots=True)
class UsageBook:
    """The open periods and tallies of one locked subscription; rates events into them.

    ``tallies`` is keyed by billing period and component; ``touched`` are those that grew.
    ``billed_periods`` needs the periods that late events may lie in.
    """

    subscription: Subscription
    open_periods: OpenPeriods
    tallies: dict[tuple[UUID, UUID], UsageTally]
    billed_periods: tuple[BillingPeriod, ...] = ()
    touched: dict[UUID, UsageTally] = field(default_factory=dict)

    def rate(self, event: UsageEventInput, *, now: datetime) -> RatedUsage:
        """Count an event in its period; raises UsageRejected, and has then counted nothing."""
        self._require_acceptable(event.event_timestamp, now=now)
        period, disposition = self._place(event.event_timestamp, now=now)
        priced = self._first_that_prices(event.usage_meter_id, period, disposition)
        if priced is None:
            raise UsageRejected(
                "USAGE_METER_NOT_PRICED",
                f"usage_meter_id: the plan of {self.subscription.typeid} has no component for "
                "this meter in the billing period",
            )
        period, component = priced
        tally = self._tally(period, component)
        is_held = disposition is UsageEventDisposition.HELD
        try:
            cost_minor = (tally.hold if is_held else tally.add)(event.quantity)
        except AmountOutOfRange as error:
            raise UsageRejected(error.reason, f"quantity: {error.message}") from None
        self.touched[tally.id] = tally
        return RatedUsage(tally, disposition, cost_minor)

    def _tally(self, period: BillingPeriod, component: Component) -> UsageTally:
        key = (period.id, component.id)
        tally = self.tallies.get(key)
        if tally is None:
            tally = self.tallies[key] = UsageTally(identifiers.new_id(), period.id, component)
        return tally

    def _require_acceptable(self, moment: datetime, *, now: datetime) -> None:
        subscription = self.subscription
        if subscription.status is not SubscriptionStatus.ACTIVE:
            raise UsageRejected(
                f"SUBSCRIPTION_{subscription.status.name}",
                f"subscription_id: {subscription.typeid} is {subscription.status} "
                "and takes no usage",
            )
        if moment > now + MAX_CLOCK_LEAD:
            raise UsageRejected(
                "EVENT_IN_FUTURE",
                f"event_timestamp: {moment.isoformat()} lies more than one hour ahead of the "
                f"server's clock ({now.isoformat()})",
            )
        if moment < subscription.started_at:
            raise UsageRejected(
                "EVENT_BEFORE_SUBSCRIPTION",
                f"event_timestamp: {moment.isoformat()} lies before the subscription's start "
                f"({subscription.started_at.isoformat()})",
            )
        if subscription.cancel_at is not None and moment >= subscription.cancel_at:
            raise UsageRejected(
                "EVENT_AFTER_CANCELLATION",
                f"event_timestamp: {moment.isoformat()} lies after the subscription's last "
                f"billing period, which ends at {subscription.cancel_at.isoformat()}",
            )

    def _place(
        self, moment: datetime, *, now: datetime
    ) -> tuple[BillingPeriod, UsageEventDisposition]:
        """Find the period that an event counts in; the server's clock decides what has begun.

        A sender's clock that runs ahead opens nothing: such an event counts in the last period.
        """
        self.open_periods.open_until(min(moment, now))
        period = self.open_periods.holding(moment)
        if period is not None:
            return period, UsageEventDisposition.RATED
        if moment >= self.open_periods.last.period_end:
            return self.open_periods.last, UsageEventDisposition.RATED
        for billed in self.billed_periods:
            if billed.holds(moment):
                if self.open_periods.version_of(billed).holds_late_usage:
                    return billed, UsageEventDisposition.HELD
                return self.open_periods.oldest, UsageEventDisposition.RATED_LATE
        raise UsageRejected(
            "EVENT_WHILE_PAUSED",
            f"event_timestamp: {moment.isoformat()} lies in no billing period: "
            "the subscription was paused then",
        )

    def _first_that_prices(
        self, usage_meter_id: UUID, period: BillingPeriod, disposition: UsageEventDisposition
    ) -> tuple[BillingPeriod, Component] | None:
        """The period itself, or for late usage the oldest open one whose plan prices the meter."""
        late = disposition is UsageEventDisposition.RATED_LATE
        for candidate in self.open_periods.periods if late else [period]:
            component = self.open_periods.version_of(candidate).component_of(usage_meter_id)
            if component is not None:
                return candidate, component
        return None


class AcceptedUsage(NamedTuple):
    """An event to store, rated."""

    id: UUID
    event: UsageEventInput
    payload_hash: bytes
    rated: RatedUsage


def rate_events(
    events: Sequence[UsageEventInput],
    known: dict[str, KnownUsageEvent],
    books: Mapping[UUID, UsageBook],
    *,
    now: datetime,
) -> tuple[list[UsageEventResult], list[AcceptedUsage]]:
    """Return the result of each event, and the events to store, both in the order of arrival.

    ``known`` holds the stored events by key; those accepted here are added, so that a key that
    comes twice in one call is seen.
    """
    results: list[UsageEventResult] = []
    accepted: list[AcceptedUsage] = []
    for event in events:
        payload_hash = event.payload_hash()
        earlier = known.get(event.idempotency_key)
        if earlier is not None:
            results.append(_result_of_known(event, payload_hash, earlier))
            continue
        try:
            rated = _book_of(event, books).rate(event, now=now)
        except UsageRejected as rejection:
            results.append(rejection.to_result())
            continue
        event_id = identifiers.new_id()
        accepted.append(AcceptedUsage(event_id, event, payload_hash, rated))
        known[event.idempotency_key] = KnownUsageEvent(
            event_id, payload_hash, event.quantity, event.event_timestamp
        )
        results.append(UsageEventResult(UsageEventOutcome.ACCEPTED, event_id))
    return results, accepted


def _book_of(event: UsageEventInput, books: Mapping[UUID, UsageBook]) -> UsageBook:
    book = books.get(event.subscription_id)
    if book is None:
        typeid = identifiers.to_typeid(identifiers.SUBSCRIPTION, event.subscription_id)
        raise UsageRejected(
            "SUBSCRIPTION_NOT_FOUND", f"subscription_id: {typeid} does not exist in this tenant"
        )
    return book


def _result_of_known(
    event: UsageEventInput, payload_hash: bytes, earlier: KnownUsageEvent
) -> UsageEventResult:
    if earlier.payload_hash == payload_hash:
        return UsageEventResult(UsageEventOutcome.DUPLICATE, earlier.id)
    typeid = identifiers.to_typeid(identifiers.USAGE_EVENT, earlier.id)
    return UsageEventResult(
        UsageEventOutcome.CONFLICT,
        earlier.id,
        "IDEMPOTENCY_KEY_REUSED",
        f"idempotency_key: {event.idempotency_key!r} belongs to {typeid} "
        f"(quantity {plain(earlier.quantity)} at {earlier.event_timestamp.isoformat()}); this "
        f"event differs (quantity {plain(event.quantity)} at {event.event_timestamp.isoformat()}) "
        "and needs a key of its own",
    )
