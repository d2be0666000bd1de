"""Pause, resume and cancel: which state allows what, and what they leave to be billed."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest
from dateutil.relativedelta import relativedelta

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2
from billing.v1 import subscription_pb2 as pb
from tests.factories.client import BillingClient, moment
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.refusals import refusal_of

ACTIVE, PAUSED, CANCELLED = (
    pb.SUBSCRIPTION_STATUS_ACTIVE,
    pb.SUBSCRIPTION_STATUS_PAUSED,
    pb.SUBSCRIPTION_STATUS_CANCELLED,
)
BASE_PRICE = 2000

Action = Callable[[BillingClient, str], Awaitable[object]]


async def pause(client: BillingClient, subscription_id: str) -> object:
    return await client.pause(subscription_id)


async def resume(client: BillingClient, subscription_id: str) -> object:
    return await client.resume(subscription_id)


async def cancel_later(client: BillingClient, subscription_id: str) -> object:
    return await client.cancel(subscription_id, request_id="later")


async def cancel_now(client: BillingClient, subscription_id: str) -> object:
    return await client.cancel(subscription_id, immediately=True, request_id="now")


@pytest.fixture
async def subscription(client: BillingClient) -> pb.Subscription:
    """A subscription whose first period began a day ago."""
    plan_id = await client.create_plan(base_price_amount=BASE_PRICE)
    return await client.subscribe(plan_id, started_at=START - timedelta(days=1))


async def amounts(client: BillingClient, subscription_id: str) -> list[int]:
    return [entry.amount for entry in await client.entries(subscription_id)]


@pytest.mark.parametrize(
    ("before", "action", "reason"),
    [
        ([], resume, "SUBSCRIPTION_NOT_PAUSED"),
        ([pause], pause, "SUBSCRIPTION_NOT_ACTIVE"),
        ([pause], cancel_later, "SUBSCRIPTION_NOT_ACTIVE"),
        ([cancel_now], pause, "SUBSCRIPTION_NOT_ACTIVE"),
        ([cancel_now], resume, "SUBSCRIPTION_NOT_PAUSED"),
        ([cancel_now], cancel_later, "SUBSCRIPTION_ALREADY_CANCELLED"),
        ([pause, cancel_now], resume, "SUBSCRIPTION_NOT_PAUSED"),
    ],
)
async def test_a_state_that_does_not_allow_it_is_a_failed_precondition(
    client: BillingClient,
    subscription: pb.Subscription,
    before: list[Action],
    action: Action,
    reason: str,
) -> None:
    for earlier in before:
        await earlier(client, subscription.id)
    unchanged = await client.get_subscription(subscription.id)
    refusal = await refusal_of(action(client, subscription.id))
    assert refusal.kind == ("FAILED_PRECONDITION", reason)
    assert refusal.metadata["subscription_id"] == subscription.id
    assert await client.get_subscription(subscription.id) == unchanged


async def test_a_cancelled_subscription_cannot_be_cancelled_again(
    client: BillingClient, subscription: pb.Subscription
) -> None:
    await client.cancel(subscription.id, immediately=True)
    again = client.cancel(subscription.id, immediately=True, request_id="cancel-2")
    refusal = await refusal_of(again)
    assert refusal.kind == ("FAILED_PRECONDITION", "SUBSCRIPTION_ALREADY_CANCELLED")


async def test_pause_and_resume_within_a_period_leave_it_as_it_was(
    client: BillingClient, subscription: pb.Subscription, clock: FakeClock
) -> None:
    paused = await client.pause(subscription.id)
    assert paused.status == PAUSED
    assert moment(paused.paused_at) == clock.now
    clock.advance(days=3)
    resumed = await client.resume(subscription.id)
    assert resumed.status == ACTIVE
    assert not resumed.HasField("paused_at")
    assert resumed.current_period_id == subscription.current_period_id
    assert resumed.current_period_end == subscription.current_period_end
    assert resumed.updated_at != paused.updated_at


async def test_after_the_periods_end_the_next_one_begins_at_the_resumption(
    client: BillingClient, subscription: pb.Subscription, clock: FakeClock
) -> None:
    await client.pause(subscription.id)
    clock.advance(days=45)
    assert not (await client.run_billing("while-paused")).results
    await client.resume(subscription.id)
    resumed_at = clock.now
    run = await client.run_billing()
    assert [result.billing_period_id for result in run.results] == [subscription.current_period_id]
    following = await client.get_subscription(subscription.id)
    assert moment(following.current_period_start) == resumed_at
    assert moment(following.current_period_end) == resumed_at + relativedelta(months=1)
    assert await amounts(client, subscription.id) == [-BASE_PRICE]


async def test_a_cancellation_at_the_periods_end_waits_for_the_run_that_bills_it(
    client: BillingClient, subscription: pb.Subscription, clock: FakeClock
) -> None:
    answer = await client.cancel(subscription.id)
    cancelling = answer.subscription
    assert answer.run_id == ""
    assert cancelling.status == ACTIVE
    assert cancelling.cancel_at == subscription.current_period_end
    clock.advance(days=60)
    run = await client.run_billing()
    assert len(run.results) == 1
    over = await client.get_subscription(subscription.id)
    assert over.status == CANCELLED
    assert over.cancelled_at == subscription.current_period_end
    clock.advance(days=60)
    assert not (await client.run_billing("run-2")).results
    assert await amounts(client, subscription.id) == [-BASE_PRICE]


async def test_a_cancellation_means_the_period_that_holds_the_present_moment(
    client: BillingClient,
) -> None:
    plan_id = await client.create_plan(base_price_amount=BASE_PRICE)
    subscription = await client.subscribe(plan_id, started_at=START - relativedelta(months=2))
    cancelling = (await client.cancel(subscription.id)).subscription
    assert moment(cancelling.cancel_at) == START + relativedelta(months=1)
    assert len((await client.run_billing()).results) == 2
    assert (await client.get_subscription(subscription.id)).status == ACTIVE


@pytest.mark.parametrize("days", [0, 10, 45, 100])
async def test_asking_again_does_not_put_the_end_off(
    client: BillingClient, subscription: pb.Subscription, clock: FakeClock, days: int
) -> None:
    await client.cancel(subscription.id)
    clock.advance(days=days)
    again = (await client.cancel(subscription.id, request_id="cancel-2")).subscription
    assert again.cancel_at == subscription.current_period_end
    clock.set(START + timedelta(days=150))
    assert len((await client.run_billing()).results) == 1
    assert (await client.get_subscription(subscription.id)).status == CANCELLED


async def test_a_cancellation_at_once_cuts_bills_and_invoices_the_period(
    client: BillingClient,
    subscription: pb.Subscription,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
) -> None:
    clock.advance(days=5)
    answer = await client.cancel(subscription.id, immediately=True)
    over = answer.subscription
    assert over.status == CANCELLED
    cut_at = moment(over.cancelled_at)
    assert START + timedelta(days=5) < cut_at <= clock.now
    run = await client.get_run(answer.run_id)
    assert run.run_type == billing_run_pb2.BILLING_RUN_TYPE_SINGLE
    (result,) = run.results
    assert moment(result.period_end) == cut_at
    (invoice,) = invoices_of(invoicing, client, subscription.id)
    assert (invoice.id, invoice.total_amount) == (result.invoice_id, BASE_PRICE)
    assert (await client.balance(subscription.id)).invoiced_amount == BASE_PRICE


async def test_a_cancellation_at_once_bills_every_period_that_is_left(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    plan_id = await client.create_plan(base_price_amount=BASE_PRICE)
    subscription = await client.subscribe(plan_id, started_at=START - timedelta(days=70))
    answer = await client.cancel(subscription.id, immediately=True)
    assert answer.subscription.status == CANCELLED
    run = await client.get_run(answer.run_id)
    assert [result.total_amount for result in run.results] == [BASE_PRICE] * 3
    assert len(invoices_of(invoicing, client, subscription.id)) == 3
    await assert_ledger_explains(client, invoicing, subscription.id)


@pytest.mark.parametrize("days_later", [10, 45])
async def test_a_cancellation_at_once_bills_nothing_beyond_an_earlier_one(
    client: BillingClient, subscription: pb.Subscription, clock: FakeClock, days_later: int
) -> None:
    await client.cancel(subscription.id)
    clock.advance(days=days_later)
    over = (await client.cancel(subscription.id, immediately=True, request_id="now")).subscription
    assert over.status == CANCELLED
    earliest = min(moment(subscription.current_period_end), clock.now)
    assert moment(over.cancelled_at) <= earliest
    assert await amounts(client, subscription.id) == [-BASE_PRICE]


async def test_a_subscription_on_its_way_out_cannot_be_paused(
    client: BillingClient, subscription: pb.Subscription, clock: FakeClock
) -> None:
    """Runs skip paused ones, and the last period must be billed."""
    await client.cancel(subscription.id)
    refusal = await refusal_of(client.pause(subscription.id))
    assert refusal.kind == ("FAILED_PRECONDITION", "SUBSCRIPTION_CANCELLING")
    clock.advance(days=45)
    (result,) = (await client.run_billing()).results
    assert result.billing_period_id == subscription.current_period_id
    assert (await client.get_subscription(subscription.id)).status == CANCELLED


async def test_a_pause_keeps_the_periods_that_no_run_has_come_to(
    client: BillingClient, subscription: pb.Subscription, clock: FakeClock
) -> None:
    """Periods up to the pause were active ones: they are billed after the resumption."""
    clock.advance(days=70)
    await client.pause(subscription.id)
    clock.advance(days=60)
    await client.resume(subscription.id)
    run = await client.run_billing()
    assert [result.total_amount for result in run.results] == [BASE_PRICE] * 3
    starts = [moment(result.period_start) for result in run.results]
    ends = [moment(result.period_end) for result in run.results]
    assert starts[1:] == ends[:-1]
    current = await client.get_subscription(subscription.id)
    assert moment(current.current_period_start) > ends[-1]


async def test_a_paused_subscription_is_cancelled_at_once_with_its_period(
    client: BillingClient, subscription: pb.Subscription, clock: FakeClock
) -> None:
    await client.pause(subscription.id)
    clock.advance(days=45)
    over = (await client.cancel(subscription.id, immediately=True)).subscription
    assert over.status == CANCELLED
    assert not over.HasField("paused_at")
    assert over.cancelled_at == subscription.current_period_end
    assert await amounts(client, subscription.id) == [-BASE_PRICE]


async def test_a_subscription_cancelled_as_it_begins_has_a_period_all_the_same(
    client: BillingClient, clock: FakeClock
) -> None:
    plan_id = await client.create_plan(base_price_amount=BASE_PRICE)
    began: datetime = clock.now
    subscription = await client.subscribe(plan_id, started_at=began)
    clock.set(began)
    over = (await client.cancel(subscription.id, immediately=True)).subscription
    assert over.status == CANCELLED
    assert began < moment(over.cancelled_at) < began + timedelta(seconds=1)


async def call_with_request_id(
    client: BillingClient, subscription_id: str, method: str
) -> pb.Subscription:
    fields = {
        "tenant_id": client.tenant_id,
        "subscription_id": subscription_id,
        "request_id": "request-1",
    }
    stub = client.subscriptions
    if method == "pause":
        answer = await stub.PauseSubscription(pb.PauseSubscriptionRequest(**fields))
    elif method == "resume":
        answer = await stub.ResumeSubscription(pb.ResumeSubscriptionRequest(**fields))
    else:
        mode = pb.CANCELLATION_MODE_IMMEDIATELY
        request = pb.CancelSubscriptionRequest(mode=mode, **fields)
        answer = await stub.CancelSubscription(request)
    return answer.subscription  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["pause", "resume", "cancel"])
async def test_repeats_are_answered_alike_in_whatever_state_it_is_by_then(
    client: BillingClient, subscription: pb.Subscription, method: str
) -> None:
    if method == "resume":
        await client.pause(subscription.id)
    answers = await asyncio.gather(
        *[call_with_request_id(client, subscription.id, method) for _ in range(5)]
    )
    if method == "pause":
        await client.resume(subscription.id)
    answers.append(await call_with_request_id(client, subscription.id, method))
    expected = {"pause": PAUSED, "resume": ACTIVE, "cancel": CANCELLED}[method]
    assert [answer.status for answer in answers] == [expected] * 6
    assert all(answer == answers[0] for answer in answers)


async def test_a_request_id_stands_for_one_subscription(
    client: BillingClient, subscription: pb.Subscription
) -> None:
    other = await client.subscribe(subscription.plan_id)
    await call_with_request_id(client, subscription.id, "pause")
    refusal = await refusal_of(call_with_request_id(client, other.id, "pause"))
    assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert refusal.fields == ["request_id"]
    assert (await client.get_subscription(other.id)).status == ACTIVE


async def test_a_cancellation_needs_a_mode_and_a_request_id(
    client: BillingClient, subscription: pb.Subscription
) -> None:
    stub = client.subscriptions
    refusal = await refusal_of(
        stub.CancelSubscription(
            pb.CancelSubscriptionRequest(
                tenant_id=client.tenant_id, subscription_id=subscription.id
            )
        )
    )
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["mode", "request_id"]
