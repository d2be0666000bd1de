"""Corrections of usage events: what counts and what it costs from then on; events never change."""

import random
from decimal import ROUND_HALF_UP, Decimal

import pytest

from billing.v1 import ledger_pb2, usage_correction_pb2, usage_pb2
from tests.factories.billing_runs import APRIL
from tests.factories.calculations import amend, corrections_of, usage_event_of, void_event
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.ledger_moves import Move, ledger_transaction, moves
from tests.factories.usage import MeteredSubscription, metered_subscription, outcomes_of

AMENDMENT = usage_correction_pb2.USAGE_EVENT_CORRECTION_TYPE_AMENDMENT
VOID = usage_correction_pb2.USAGE_EVENT_CORRECTION_TYPE_VOID
POSTED = ledger_pb2.LEDGER_ENTRY_STATUS_POSTED
PENDING = ledger_pb2.LEDGER_ENTRY_STATUS_PENDING


@pytest.fixture
async def metered(client: BillingClient) -> MeteredSubscription:
    """A subscription whose plan costs 2 for each unit."""
    return await metered_subscription(client)


async def used(metered: MeteredSubscription, quantity: str = "10") -> str:
    """Consume a quantity now; return the event."""
    [result] = await metered.send(metered.event(quantity))
    return result.usage_event_id


async def unbilled(metered: MeteredSubscription) -> int:
    return (await metered.client.balance(metered.subscription_id)).unbilled_amount


async def meter_of(metered: MeteredSubscription) -> usage_pb2.SubscriptionUsageMeter:
    """The aggregate of the subscription's first period."""
    answer = await metered.client.usage.ListSubscriptionUsageMeters(
        usage_pb2.ListSubscriptionUsageMetersRequest(
            tenant_id=metered.client.tenant_id, subscription_id=metered.subscription_id
        )
    )
    return min(answer.subscription_usage_meters, key=lambda row: row.id)  # type: ignore[no-any-return]


def pending_of(meter: usage_pb2.SubscriptionUsageMeter) -> tuple[str, int]:
    """What waits for a recalculation: quantity and amount."""
    return meter.pending_quantity.value, meter.pending_amount


class TestOpenPeriod:
    @pytest.mark.parametrize(
        ("quantity", "change", "move"),
        [
            ("25", 30, Move("usage_cost_corrected", -30, "receivable", "usage_revenue")),
            ("4", -12, Move("usage_cost_corrected", 12, "usage_revenue", "receivable")),
            ("0", -20, Move("usage_cost_corrected", 20, "usage_revenue", "receivable")),
            ("10.2", 0, Move("usage_cost_corrected", 0, "receivable", "usage_revenue")),
        ],
        ids=["up", "down", "to zero", "by too little to cost"],
    )
    async def test_an_amendment_is_posted_at_once(
        self, metered: MeteredSubscription, quantity: str, change: int, move: Move
    ) -> None:
        event_id = await used(metered)

        correction = await amend(
            metered.client, event_id, quantity, reason="miscounted", corrected_by_user_id="ada"
        )

        assert (correction.correction_type, correction.status) == (AMENDMENT, POSTED)
        assert (correction.quantity_before.value, correction.quantity_after.value) == (
            "10",
            quantity,
        )
        assert (correction.cost_change_amount, correction.currency) == (change, "USD")
        assert (correction.reason, correction.corrected_by_user_id) == ("miscounted", "ada")
        assert not correction.HasField("taken_in_at")
        event = await usage_event_of(metered.client, event_id)
        assert (event.quantity.value, event.cost_amount) == ("10", 20)
        assert (event.corrected_quantity.value, event.corrected_cost_amount) == (
            quantity,
            20 + change,
        )
        assert (event.voided, event.HasField("taken_in_at")) == (False, False)
        assert (event.billing_period_id, event.id) == (
            correction.billing_period_id,
            correction.usage_event_id,
        )
        assert await unbilled(metered) == 20 + change
        meter = await meter_of(metered)
        assert (meter.total_quantity.value, meter.total_raw_usage_amount) == (quantity, 20 + change)
        assert (pending_of(meter), meter.event_count) == (("0", 0), 1)
        assert moves(await metered.client.entries(metered.subscription_id))[1:] == [move]

    async def test_the_entry_tells_of_the_event_and_the_reason(
        self, metered: MeteredSubscription
    ) -> None:
        event_id = await used(metered)
        correction = await amend(metered.client, event_id, "25", reason="counted twice")

        transaction = await ledger_transaction(metered.client, correction.ledger_transaction_id)

        [entry] = transaction.entries
        assert transaction.initiating_source_type == "usage_event_correction"
        assert entry.source_usage_event_id == event_id
        assert entry.billing_period_id == correction.billing_period_id
        assert entry.usage_meter_id == metered.meter_id
        assert "counted twice" in entry.description

    async def test_a_void_takes_all_of_an_event(self, metered: MeteredSubscription) -> None:
        event_id, other = await used(metered), await used(metered, "3")

        correction = await void_event(metered.client, event_id)

        assert (correction.correction_type, correction.cost_change_amount) == (VOID, -20)
        assert correction.quantity_after.value == "0"
        event = await usage_event_of(metered.client, event_id)
        assert (event.voided, event.corrected_quantity.value) == (True, "0")
        assert (event.cost_amount, event.corrected_cost_amount) == (20, 0)
        assert not (await usage_event_of(metered.client, other)).voided
        assert await unbilled(metered) == 6

    async def test_corrections_follow_each_other(self, metered: MeteredSubscription) -> None:
        event_id = await used(metered)

        for quantity in ("7", "0", "12.5"):
            await amend(metered.client, event_id, quantity)
        await void_event(metered.client, event_id)

        corrections = await corrections_of(metered.client, event_id)
        steps = [(c.quantity_before.value, c.quantity_after.value) for c in corrections]
        assert steps == [("10", "7"), ("7", "0"), ("0", "12.5"), ("12.5", "0")]
        assert [c.cost_change_amount for c in corrections] == [-6, -14, 25, -25]
        assert await unbilled(metered) == 0

    async def test_an_event_that_was_amended_to_nothing_can_still_be_voided(
        self, metered: MeteredSubscription
    ) -> None:
        event_id = await used(metered)
        await amend(metered.client, event_id, "0")
        assert (await void_event(metered.client, event_id)).cost_change_amount == 0
        assert (await usage_event_of(metered.client, event_id)).voided

    async def test_included_units_are_those_of_the_period(self, client: BillingClient) -> None:
        """What an event no longer takes of them, others have: its own cost may be below zero."""
        metered = await metered_subscription(client, included="10")
        first, second = await used(metered, "6"), await used(metered, "6")

        assert (await amend(client, first, "2")).cost_change_amount == -4
        assert (await amend(client, first, "4")).cost_change_amount == 0
        assert (await amend(client, second, "7")).cost_change_amount == 2

        events = {event.id: event for event in await metered.stored()}
        assert [events[each].cost_amount for each in (first, second)] == [0, 4]
        assert [events[each].corrected_cost_amount for each in (first, second)] == [-4, 6]
        assert [events[each].corrected_quantity.value for each in (first, second)] == ["4", "7"]
        assert await unbilled(metered) == 2

    async def test_an_event_that_was_late_counts_where_it_was_counted(
        self, metered: MeteredSubscription, clock: FakeClock
    ) -> None:
        clock.set(APRIL.replace(day=6))
        await metered.client.run_billing()
        late = await used(metered)
        event = await usage_event_of(metered.client, late)
        assert event.disposition == usage_pb2.USAGE_EVENT_DISPOSITION_RATED_LATE

        correction = await amend(metered.client, late, "11")

        assert (correction.status, correction.cost_change_amount) == (POSTED, 2)
        assert correction.billing_period_id == event.billing_period_id
        assert await unbilled(metered) == 22

    async def test_usage_of_a_paused_subscription_can_be_corrected(
        self, metered: MeteredSubscription
    ) -> None:
        event_id = await used(metered)
        await metered.client.pause(metered.subscription_id)
        assert (await amend(metered.client, event_id, "11")).status == POSTED

    async def test_the_run_bills_what_counts(
        self, metered: MeteredSubscription, clock: FakeClock
    ) -> None:
        event_id = await used(metered)
        await used(metered, "5")
        await amend(metered.client, event_id, "4")
        clock.set(APRIL.replace(day=6))

        [result] = (await metered.client.run_billing()).results

        assert result.total_amount == 18
        assert await unbilled(metered) == 0


async def test_costs_add_up_to_the_charge_whatever_is_corrected(client: BillingClient) -> None:
    """Far below a cent, with included units: after every step the period costs its charge."""
    metered = await metered_subscription(client, unit_price="0.015", included="40")
    chance = random.Random("corrections")
    counting: dict[str, Decimal] = {}
    for _ in range(40):
        quantity = Decimal(chance.randrange(1, 90_000)) / 1000
        event_id = chance.choice([*counting, ""])
        if not event_id:
            event_id = await used(metered, str(quantity))
        elif chance.random() < 0.3:
            await void_event(client, event_id)
            quantity = Decimal(0)
        elif quantity != counting[event_id]:
            await amend(client, event_id, str(quantity))
        counting[event_id] = quantity
        if quantity == 0:
            del counting[event_id]
        billable = max(Decimal(0), sum(counting.values(), Decimal(0)) - 40)
        charge = (billable * Decimal("0.015")).quantize(Decimal(1), ROUND_HALF_UP)
        assert await unbilled(metered) == charge
    events = await metered.stored()
    assert sum(event.corrected_cost_amount for event in events) == await unbilled(metered)
    assert (await meter_of(metered)).total_quantity.value == format(
        sum(counting.values(), Decimal(0)).normalize(), "f"
    )


class TestBilledPeriod:
    @pytest.fixture
    async def billed(self, metered: MeteredSubscription, clock: FakeClock) -> str:
        """An event of ten units, in a period that is billed."""
        event_id = await used(metered)
        clock.set(APRIL.replace(day=6))
        await metered.client.run_billing()
        return event_id

    async def test_a_correction_waits_for_a_recalculation(
        self, metered: MeteredSubscription, billed: str
    ) -> None:
        before = await metered.client.balance(metered.subscription_id)

        correction = await amend(metered.client, billed, "25")

        assert (correction.status, correction.cost_change_amount) == (PENDING, 30)
        assert not correction.HasField("taken_in_at")
        meter = await meter_of(metered)
        assert (meter.total_quantity.value, meter.total_raw_usage_amount) == ("10", 20)
        assert pending_of(meter) == ("15", 30)
        event = await usage_event_of(metered.client, billed)
        assert (event.corrected_quantity.value, event.corrected_cost_amount) == ("25", 50)
        entries = await metered.client.entries(metered.subscription_id)
        assert moves(entries)[1:] == [
            Move("usage_cost_corrected", -30, "receivable", "usage_revenue", "pending")
        ]
        after = await metered.client.balance(metered.subscription_id)
        assert after.outstanding_amount == before.outstanding_amount == 20
        assert (await metered.client.trial_balance()).difference_amount == 0

    async def test_what_waits_is_counted_on_top_of_what_waited(
        self, metered: MeteredSubscription, billed: str
    ) -> None:
        changes = [
            (await amend(metered.client, billed, "25")).cost_change_amount,
            (await amend(metered.client, billed, "25.3")).cost_change_amount,
            (await void_event(metered.client, billed)).cost_change_amount,
        ]
        assert changes == [30, 1, -51]
        assert pending_of(await meter_of(metered)) == ("-10", -20)
        statuses = {c.status for c in await corrections_of(metered.client, billed)}
        assert statuses == {PENDING}

    async def test_the_next_period_is_not_concerned(
        self, metered: MeteredSubscription, billed: str
    ) -> None:
        await void_event(metered.client, billed)
        [result] = await metered.send(metered.event("3", at=APRIL.replace(day=6)))
        event = await usage_event_of(metered.client, result.usage_event_id)
        assert event.cost_amount == 6
        assert await unbilled(metered) == 6


async def test_a_voided_events_key_stays_taken(metered: MeteredSubscription) -> None:
    """Who sends it again gets the answer of then; what happened needs a new key."""
    event = metered.event("10")
    [sent] = await metered.send(event)
    await void_event(metered.client, sent.usage_event_id)

    [again] = await metered.send(event)

    assert outcomes_of([again]) == ["duplicate"]
    assert again.usage_event_id == sent.usage_event_id
    assert await unbilled(metered) == 0
    event.quantity.value = "11"
    assert outcomes_of(await metered.send(event)) == ["conflict"]
