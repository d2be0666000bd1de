"""Whatever is asked for in whatever order: ledger, balances and invoices tell one story."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import usage_pb2
from tests.factories.client import (
    BillingClient,
    component,
    error_info,
    moment,
    usage_event,
)
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.usage import outcomes_of

SUBSCRIPTIONS = 2
METERS = 2
PRICES = ["0.37", "12.5"]
INCLUDED = ["5", "0"]
ALLOWED_REFUSALS = {
    "SUBSCRIPTION_NOT_ACTIVE",
    "SUBSCRIPTION_NOT_PAUSED",
    "SUBSCRIPTION_CANCELLING",
    "SUBSCRIPTION_ALREADY_CANCELLED",
}


@dataclass(frozen=True)
class Sent:
    """One event to send; ``days_ago`` may be a little negative. Few keys, so that they repeat."""

    subscription: int
    meter: int
    quantity: str
    days_ago: float
    key: int


@dataclass(frozen=True)
class Step:
    """One thing to do; ``days`` is how far the clock goes on first."""

    action: str
    days: int = 0
    subscription: int = 0
    events: Sequence[Sent] = ()


@dataclass
class Story:
    """Two subscriptions to one plan of a new tenant, and all events that were accepted."""

    client: BillingClient
    clock: FakeClock
    invoicing: ReferenceInvoicingServer
    meter_ids: list[str]
    subscription_ids: list[str]
    accepted: dict[str, Sent] = field(default_factory=dict)
    run_count: int = 0

    async def take(self, step: Step) -> None:
        """Do one step; a state that does not allow it is an answer too."""
        self.clock.advance(days=step.days)
        if step.action == "ingest":
            await self.ingest(step.events)
            return
        if step.action in {"bill", "bill without invoicing"}:
            self.invoicing.error_rate = 0.0 if step.action == "bill" else 1.0
            await self.bill()
            self.invoicing.error_rate = 0.0
            return
        try:
            await self.change_state(step.action, self.subscription_ids[step.subscription])
        except grpc.aio.AioRpcError as error:
            if error_info(error).reason not in ALLOWED_REFUSALS:
                raise

    async def change_state(self, action: str, subscription_id: str) -> None:
        """Pause, resume or cancel."""
        if action == "pause":
            await self.client.pause(subscription_id)
        elif action == "resume":
            await self.client.resume(subscription_id)
        else:
            self.run_count += 1
            await self.client.cancel(
                subscription_id,
                immediately=action == "cancel at once",
                request_id=f"cancel-{self.run_count}",
            )

    async def ingest(self, sent: Sequence[Sent]) -> None:
        """Send events, and remember those that were accepted."""
        now = self.clock.now
        results = (await self.client.ingest([self.event(each, now) for each in sent])).results
        for each, result, outcome in zip(sent, results, outcomes_of(results), strict=True):
            if outcome == "accepted":
                assert result.usage_event_id not in self.accepted
                self.accepted[result.usage_event_id] = each
            elif outcome in {"duplicate", "conflict"}:
                assert self.accepted[result.usage_event_id].key == each.key

    def event(self, sent: Sent, now: datetime) -> usage_pb2.UsageEventInput:
        """The event as it is sent."""
        return usage_event(
            self.subscription_ids[sent.subscription],
            self.meter_ids[sent.meter],
            sent.quantity,
            now - timedelta(days=sent.days_ago),
            key=f"key-{sent.key}",
        )

    async def bill(self) -> None:
        """Bill everything that is due."""
        self.run_count += 1
        run = await self.client.run_billing(f"run-{self.run_count}")
        reasons = {result.error_reason for result in run.results}
        assert reasons <= {"", "INVOICING_UNAVAILABLE"}

    async def audit(self) -> None:
        """Fail unless every cent is explained, and every accepted event is in the ledger once."""
        await assert_ledger_explains(self.client, self.invoicing, *self.subscription_ids)
        costs: dict[str, int] = {}
        for subscription_id in self.subscription_ids:
            invoiced = 0
            for entry in await self.client.entries(subscription_id):
                if entry.source_usage_event_id:
                    costs[entry.source_usage_event_id] = -entry.amount
            for invoice in invoices_of(self.invoicing, self.client, subscription_id):
                invoiced += invoice.total_amount
            balance = await self.client.balance(subscription_id)
            assert balance.invoiced_amount == invoiced
        assert costs.keys() == self.accepted.keys()


QUANTITIES = st.one_of(
    st.sampled_from(["0", "1", "0.5", "4.999999999999", "1000"]),
    st.integers(0, 99_999).map(lambda number: f"{number // 1000}.{number % 1000:03}"),
)
EVENTS = st.lists(
    st.builds(
        Sent,
        subscription=st.integers(0, SUBSCRIPTIONS - 1),
        meter=st.integers(0, METERS - 1),
        quantity=QUANTITIES,
        days_ago=st.one_of(st.floats(-0.03, 3), st.floats(3, 70)),
        key=st.integers(0, 60),
    ),
    min_size=1,
    max_size=8,
)
STEPS = st.one_of(
    st.builds(Step, st.just("ingest"), days=st.integers(0, 9), events=EVENTS),
    st.builds(Step, st.just("ingest"), days=st.integers(0, 9), events=EVENTS),
    st.builds(
        Step, st.sampled_from(["bill", "bill", "bill without invoicing"]), days=st.integers(0, 40)
    ),
    st.builds(
        Step,
        st.sampled_from(["pause", "resume", "resume", "cancel at once", "cancel at period end"]),
        days=st.integers(0, 20),
        subscription=st.integers(0, SUBSCRIPTIONS - 1),
    ),
)


@pytest.fixture(scope="module")
def parts(
    channel: grpc.aio.Channel,
    signing_key: DevelopmentKey,
    session_clock: FakeClock,
    session_invoicing: ReferenceInvoicingServer,
) -> dict[str, Any]:
    """What every story is told with."""
    return {
        "channel": channel,
        "key": signing_key,
        "clock": session_clock,
        "invoicing": session_invoicing,
    }


async def begin(parts: dict[str, Any]) -> Story:
    """Begin a story: a new tenant in the middle of March, two subscriptions of different age."""
    parts["clock"].set(START)
    client = BillingClient(parts["channel"], parts["key"])
    meter_ids = [await client.create_meter(f"meter-{number}") for number in range(METERS)]
    plan_id = await client.create_plan(
        base_price_amount=1999,
        components=[
            component(meter_id, name=meter_id, unit_price=price, included=included)
            for meter_id, price, included in zip(meter_ids, PRICES, INCLUDED, strict=True)
        ],
    )
    started = [START - timedelta(days=45), START - timedelta(days=3)]
    subscriptions = [await client.subscribe(plan_id, started_at=at) for at in started]
    ids = [subscription.id for subscription in subscriptions]
    return Story(client, parts["clock"], parts["invoicing"], meter_ids, ids)


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(st.lists(STEPS, min_size=3, max_size=10))
async def test_after_every_step_each_cent_is_explained(
    parts: dict[str, Any], steps: list[Step]
) -> None:
    story = await begin(parts)
    for step in steps:
        await story.take(step)
        await story.audit()


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(STEPS, min_size=3, max_size=8))
async def test_in_the_end_everything_that_was_used_is_invoiced_once(
    parts: dict[str, Any], steps: list[Step]
) -> None:
    story = await begin(parts)
    for step in steps:
        await story.take(step)
    for subscription_id in story.subscription_ids:
        if (await story.client.get_subscription(subscription_id)).HasField("paused_at"):
            await story.client.resume(subscription_id)
    story.clock.advance(days=100)
    await story.bill()
    await story.audit()
    periods: dict[str, int] = defaultdict(int)
    for subscription_id in story.subscription_ids:
        balance = await story.client.balance(subscription_id)
        assert balance.billed_not_invoiced_amount == balance.unbilled_amount == 0
        for invoice in invoices_of(story.invoicing, story.client, subscription_id):
            periods[invoice.idempotency_key] += 1
            assert moment(invoice.period_end) <= story.clock.now
    assert set(periods.values()) == {1}
