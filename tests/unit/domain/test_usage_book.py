"""Rating events into the open periods of a subscription, and what becomes of each event."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.catalog import Component
from billing.domain.identifiers import USAGE_EVENT, new_id, to_typeid
from billing.domain.money import MAX_AMOUNT_MINOR
from billing.domain.periods import BillingPeriod, BillingPeriodStatus, OpenPeriods
from billing.domain.subscriptions import SubscriptionStatus
from billing.domain.usage import (
    AcceptedUsage,
    KnownUsageEvent,
    UsageBook,
    UsageEventDisposition,
    UsageEventInput,
    UsageEventOutcome,
    UsageEventResult,
    UsageRejected,
    rate_events,
)
from tests.factories.domain import BEGIN, a_component, a_subscription, a_version, open_periods_of

NOW = BEGIN + timedelta(days=14)
FIRST_END = datetime(2026, 2, 1, tzinfo=UTC)
SHORTEST = timedelta(microseconds=1)


def a_book(
    *components: Component,
    status: SubscriptionStatus = SubscriptionStatus.ACTIVE,
    cancel_at: datetime | None = None,
    billed: tuple[BillingPeriod, ...] = (),
) -> UsageBook:
    """The book of a subscription that began on 1 January."""
    open_periods = open_periods_of(a_version(*components))
    subscription = a_subscription(open_periods, status=status, cancel_at=cancel_at)
    return UsageBook(subscription, open_periods, {}, billed)


def an_event(
    book: UsageBook,
    component: Component,
    quantity: str = "1",
    *,
    at: datetime = NOW,
    key: str = "key-1",
    properties: Mapping[str, str] | None = None,
) -> UsageEventInput:
    """An event of the book's subscription."""
    return UsageEventInput(
        idempotency_key=key,
        subscription_id=book.subscription.id,
        usage_meter_id=component.usage_meter_id,
        quantity=Decimal(quantity),
        event_timestamp=at,
        properties=properties or {},
    )


def rejection_of(book: UsageBook, event: UsageEventInput, *, now: datetime = NOW) -> UsageRejected:
    """Return why the book does not take the event; fails if that counts anything."""
    tallies = {key: replace(tally) for key, tally in book.tallies.items()}
    with pytest.raises(UsageRejected) as rejection:
        book.rate(event, now=now)
    assert not book.touched
    assert all(book.tallies[key] == tally for key, tally in tallies.items())
    assert all(tally.quantity == 0 for key, tally in book.tallies.items() if key not in tallies)
    return rejection.value


def rate(
    book: UsageBook, *events: UsageEventInput, known: dict[str, KnownUsageEvent] | None = None
) -> tuple[list[UsageEventResult], list[AcceptedUsage]]:
    """Rate a call's events into one book."""
    return rate_events(events, known or {}, {book.subscription.id: book}, now=NOW)


def test_an_event_is_counted_in_the_period_that_holds_it() -> None:
    component = a_component(unit_price="2")
    book = a_book(component)
    rated = book.rate(an_event(book, component, "3"), now=NOW)
    assert rated.disposition is UsageEventDisposition.RATED
    assert rated.cost_minor == 6
    assert rated.tally.billing_period_id == book.open_periods.oldest.id
    assert book.touched == {rated.tally.id: rated.tally}
    assert not book.open_periods.opened


def test_events_go_on_from_what_was_counted_before() -> None:
    component = a_component(unit_price="0.5", included="10")
    book = a_book(component)
    rated = [book.rate(an_event(book, component, q), now=NOW) for q in ("9", "2", "1", "1")]
    assert [usage.cost_minor for usage in rated] == [0, 1, 0, 1]
    (tally,) = book.touched.values()
    assert (tally.quantity, tally.rated_minor, tally.event_count) == (Decimal(13), 2, 4)


def test_an_event_beyond_the_last_period_opens_those_up_to_it() -> None:
    component = a_component()
    book = a_book(component)
    now = datetime(2026, 4, 2, tzinfo=UTC)
    rated = book.rate(an_event(book, component, at=now), now=now)
    assert [p.period_start.month for p in book.open_periods.opened] == [2, 3, 4]
    assert rated.tally.billing_period_id == book.open_periods.last.id
    assert rated.disposition is UsageEventDisposition.RATED


@pytest.mark.parametrize("month", [1, 2])
def test_the_last_moment_of_a_period_is_its_own(month: int) -> None:
    component = a_component()
    book = a_book(component)
    end = datetime(2026, month + 1, 1, tzinfo=UTC)
    now = datetime(2026, 6, 1, tzinfo=UTC)
    last = book.rate(an_event(book, component, at=end - SHORTEST), now=now)
    first = book.rate(an_event(book, component, at=end), now=now)
    spans = {p.id: p.period_start.month for p in book.open_periods.periods}
    assert spans[last.tally.billing_period_id] == month
    assert spans[first.tally.billing_period_id] == month + 1


def a_billed_period(
    book_start: datetime, end: datetime, open_periods: OpenPeriods
) -> BillingPeriod:
    """A period that was billed before, under the plan version of the oldest open one."""
    return replace(
        open_periods_of(a_version(), start=book_start).oldest,
        plan_version_id=open_periods.oldest.plan_version_id,
        period_end=end,
        status=BillingPeriodStatus.INVOICED,
    )


def test_a_late_event_is_counted_in_the_oldest_open_period() -> None:
    component = a_component()
    december = datetime(2025, 12, 1, tzinfo=UTC)
    book = a_book(component)
    book.billed_periods = (a_billed_period(december, BEGIN, book.open_periods),)
    book.subscription = replace(book.subscription, started_at=december)
    book.open_periods.open_following()
    rated = book.rate(an_event(book, component, at=BEGIN - SHORTEST), now=NOW)
    assert rated.disposition is UsageEventDisposition.RATED_LATE
    assert rated.tally.billing_period_id == book.open_periods.oldest.id


def test_late_usage_goes_to_the_oldest_open_period_that_prices_its_meter() -> None:
    """A meter that the plan dropped and took up again is still paid for."""
    component = a_component()
    december = datetime(2025, 12, 1, tzinfo=UTC)
    without = a_version()
    again = a_version(component, number=2, created_at=FIRST_END)
    open_periods = open_periods_of(without, again)
    february = open_periods.open_following()
    subscription = replace(a_subscription(open_periods), started_at=december)
    billed = a_billed_period(december, BEGIN, open_periods)
    book = UsageBook(subscription, open_periods, {}, (billed,))
    rated = book.rate(an_event(book, component, at=BEGIN - SHORTEST), now=NOW)
    assert rated.disposition is UsageEventDisposition.RATED_LATE
    assert rated.tally.billing_period_id == february.id


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(minutes=40)])
def test_a_server_whose_clock_is_behind_still_finds_the_period(ahead: timedelta) -> None:
    """Another server opened it; this one thinks that it has not begun."""
    component = a_component()
    book = a_book(component)
    behind = BEGIN - timedelta(milliseconds=5)
    rated = book.rate(an_event(book, component, at=BEGIN + ahead), now=behind)
    assert rated.disposition is UsageEventDisposition.RATED
    assert rated.tally.billing_period_id == book.open_periods.oldest.id
    assert not book.open_periods.opened


def test_an_event_in_no_period_was_consumed_while_paused() -> None:
    component = a_component()
    november = datetime(2025, 11, 1, tzinfo=UTC)
    december = datetime(2025, 12, 1, tzinfo=UTC)
    book = a_book(component)
    book.billed_periods = (a_billed_period(november, december, book.open_periods),)
    book.subscription = replace(book.subscription, started_at=november)
    for moment in (december, BEGIN - SHORTEST):
        rejection = rejection_of(book, an_event(book, component, at=moment))
        assert rejection.reason == "EVENT_WHILE_PAUSED"
        assert moment.isoformat() in rejection.message


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (SubscriptionStatus.PAUSED, "SUBSCRIPTION_PAUSED"),
        (SubscriptionStatus.CANCELLED, "SUBSCRIPTION_CANCELLED"),
    ],
)
def test_only_active_subscriptions_take_usage(status: SubscriptionStatus, reason: str) -> None:
    component = a_component()
    book = a_book(component, status=status)
    rejection = rejection_of(book, an_event(book, component))
    assert rejection.reason == reason
    assert book.subscription.typeid in rejection.message


def test_an_event_may_be_an_hour_ahead_of_the_clock_and_no_more() -> None:
    component = a_component()
    book = a_book(component)
    hour_ahead = NOW + timedelta(hours=1)
    rejection = rejection_of(book, an_event(book, component, at=hour_ahead + SHORTEST))
    assert rejection.reason == "EVENT_IN_FUTURE"
    accepted = book.rate(an_event(book, component, at=hour_ahead), now=NOW)
    assert accepted.disposition is UsageEventDisposition.RATED


def test_an_event_lies_in_the_subscriptions_life() -> None:
    component = a_component()
    book = a_book(component, cancel_at=FIRST_END)
    before = rejection_of(book, an_event(book, component, at=BEGIN - SHORTEST))
    assert before.reason == "EVENT_BEFORE_SUBSCRIPTION"
    now = FIRST_END + timedelta(days=1)
    after = rejection_of(book, an_event(book, component, at=FIRST_END), now=now)
    assert after.reason == "EVENT_AFTER_CANCELLATION"
    for moment in (BEGIN, FIRST_END - SHORTEST):
        book.rate(an_event(book, component, at=moment), now=now)
    assert not book.open_periods.opened


def test_a_meter_that_the_plan_does_not_price_is_not_counted() -> None:
    book = a_book(a_component())
    rejection = rejection_of(book, an_event(book, a_component()))
    assert rejection.reason == "USAGE_METER_NOT_PRICED"


def test_an_amount_that_does_not_fit_is_not_counted_and_leaves_room_for_less() -> None:
    component = a_component(unit_price="1")
    book = a_book(component)
    book.rate(an_event(book, component, str(MAX_AMOUNT_MINOR - 5)), now=NOW)
    book.touched.clear()
    rejection = rejection_of(book, an_event(book, component, "6"))
    assert rejection.reason == "AMOUNT_OUT_OF_RANGE"
    assert rejection.message.startswith("quantity: ")
    assert book.rate(an_event(book, component, "5"), now=NOW).cost_minor == 5


def test_results_and_accepted_events_keep_the_order_of_arrival() -> None:
    component = a_component(unit_price="1")
    book = a_book(component)
    events = [
        an_event(book, component, "1", key="a"),
        an_event(book, a_component(), "1", key="b"),
        an_event(book, component, "2", key="c"),
        an_event(book, component, "1", key="a"),
        an_event(book, component, "9", key="c"),
    ]
    results, accepted = rate(book, *events)
    assert [str(result.outcome) for result in results] == [
        "accepted",
        "rejected",
        "accepted",
        "duplicate",
        "conflict",
    ]
    assert [usage.event for usage in accepted] == [events[0], events[2]]
    assert [results[n].usage_event_id for n in (0, 2)] == [usage.id for usage in accepted]
    assert results[3].usage_event_id == accepted[0].id
    assert results[4].usage_event_id == accepted[1].id
    assert [usage.rated.cost_minor for usage in accepted] == [1, 2]


def test_a_rejected_key_is_free_for_an_event_that_can_be_taken() -> None:
    component = a_component()
    book = a_book(component)
    results, accepted = rate(
        book,
        an_event(book, component, at=NOW + timedelta(days=1)),
        an_event(book, component),
    )
    assert [result.reason for result in results] == ["EVENT_IN_FUTURE", ""]
    assert len(accepted) == 1


@pytest.mark.parametrize(
    ("quantity", "hours_later", "outcome"),
    [("2.50", 0, "duplicate"), ("2.51", 0, "conflict"), ("2.5", 1, "conflict")],
)
def test_a_known_event_is_never_rated_again(quantity: str, hours_later: int, outcome: str) -> None:
    component = a_component()
    book = a_book(component, status=SubscriptionStatus.PAUSED)
    stored = an_event(book, component, "2.5")
    known = KnownUsageEvent(new_id(), stored.payload_hash(), stored.quantity, NOW)
    event = an_event(book, component, quantity, at=NOW + timedelta(hours=hours_later))
    (result,), accepted = rate(book, event, known={"key-1": known})
    assert (str(result.outcome), result.usage_event_id) == (outcome, known.id)
    assert not accepted
    if result.outcome is UsageEventOutcome.CONFLICT:
        assert result.reason == "IDEMPOTENCY_KEY_REUSED"
        for part in (
            to_typeid(USAGE_EVENT, known.id),
            f"quantity 2.5 at {NOW.isoformat()}",
            f"quantity {quantity} at {event.event_timestamp.isoformat()}",
        ):
            assert part in result.message


def test_an_unknown_subscription_is_a_rejection() -> None:
    component = a_component()
    book = a_book(component)
    (result,), _ = rate_events([an_event(book, component)], {}, {}, now=NOW)
    assert result.reason == "SUBSCRIPTION_NOT_FOUND"
    assert book.subscription.typeid in result.message


EVENT = UsageEventInput("key", UUID(int=1), UUID(int=2), Decimal("1.5"), NOW, {"a": "b"})


@pytest.mark.parametrize(
    "other",
    [
        EVENT._replace(subscription_id=UUID(int=3)),
        EVENT._replace(usage_meter_id=UUID(int=3)),
        EVENT._replace(quantity=Decimal("1.500000000001")),
        EVENT._replace(quantity=Decimal(15)),
        EVENT._replace(event_timestamp=NOW + SHORTEST),
        EVENT._replace(properties={}),
        EVENT._replace(properties={"a": ""}),
        EVENT._replace(properties={"a": "b", "c": ""}),
        EVENT._replace(properties={"b": "a"}),
        EVENT._replace(properties={"a=1": "b"}),
        EVENT._replace(properties={"a": "b\n1:c=1:d"}),
    ],
)
def test_another_payload_has_another_digest(other: UsageEventInput) -> None:
    assert other.payload_hash() != EVENT.payload_hash()


def test_the_same_payload_has_the_same_digest_however_it_is_written() -> None:
    several = EVENT._replace(properties={"a": "1", "b": "2"})
    same = several._replace(
        idempotency_key="other", quantity=Decimal("1.50"), properties={"b": "2", "a": "1"}
    )
    assert same.payload_hash() == several.payload_hash()


PROPERTIES = st.dictionaries(*[st.text("a1:=\n", max_size=4)] * 2, max_size=3)


@given(PROPERTIES, PROPERTIES)
def test_digests_are_equal_only_for_equal_properties(
    one: dict[str, str], other: dict[str, str]
) -> None:
    digests = {EVENT._replace(properties=pairs).payload_hash() for pairs in (one, other)}
    assert (len(digests) == 1) == (one == other)
