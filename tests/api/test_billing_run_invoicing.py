"""An invoicing service that fails: results fail, facts stay, and the next run delivers."""

import random
from collections.abc import Sequence

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2 as pb
from billing.v1 import ledger_pb2, subscription_pb2
from tests.factories.billing_runs import (
    COMPLETED,
    FAILED,
    RUN_FAILED,
    SUCCEEDED,
    counts_of,
    due_subscriptions,
    metered_plan,
    results_by_subscription,
)
from tests.factories.billing_runs import FEBRUARY as FEB
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of

MAX_RUNS = 50


async def metered_subscriptions(
    client: BillingClient, count: int
) -> list[subscription_pb2.Subscription]:
    """Subscriptions whose February is due, each with usage of its own."""
    plan = await metered_plan(client, unit_price="2", included="10")
    subscriptions = []
    for number in range(count):
        subscription = await client.subscribe(
            plan.plan_id, started_at=FEB, customer_id=f"cus-{number}"
        )
        await client.use(subscription.id, plan.meter_id, str(10 + number), FEB)
        subscriptions.append(subscription)
    return subscriptions


async def ledger_of(
    client: BillingClient, subscriptions: Sequence[subscription_pb2.Subscription]
) -> tuple[list[ledger_pb2.LedgerEntry], ledger_pb2.GetTrialBalanceResponse]:
    """All that the ledger says."""
    entries = [entry for s in subscriptions for entry in await client.entries(s.id)]
    return entries, await client.trial_balance()


async def run_until_delivered(client: BillingClient) -> list[pb.BillingRun]:
    """Run billing, again and again where invoices are left; the last run has none left."""
    runs: list[pb.BillingRun] = []
    for number in range(MAX_RUNS):
        runs.append(await client.run_billing(f"delivering-{number}"))
        if runs[-1].status == COMPLETED:
            return runs
    raise AssertionError(f"still not delivered: {runs[-1]}")


async def test_a_run_without_invoicing_is_delivered_by_the_next_one(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """The issue: invoicing down for a whole run, then up: the second run delivers."""
    subscriptions = await metered_subscriptions(client, 4)
    invoicing.error_rate = 1.0
    down = await client.run_billing("down")
    ledger = await ledger_of(client, subscriptions)
    invoicing.error_rate = 0.0
    clock.advance(days=1)

    up = await client.run_billing("up")

    assert (down.status, counts_of(down)) == (RUN_FAILED, (0, 4, 0, 0))
    assert {result.error_reason for result in down.results} == {"INVOICING_UNAVAILABLE"}
    assert (up.status, counts_of(up)) == (COMPLETED, (4, 0, 0, 0))
    before, after = results_by_subscription(down), results_by_subscription(up)
    for subscription in subscriptions:
        failed, delivered = before[subscription.id], after[subscription.id]
        assert failed.total_amount == delivered.total_amount >= 2000
        assert failed.billing_period_id == delivered.billing_period_id
        [invoice] = invoices_of(invoicing, client, subscription.id)
        assert (invoice.id, invoice.total_amount) == (
            delivered.invoice_id,
            delivered.total_amount,
        )
        assert invoice.issue_date.day == 15  # of the posting: the stored request is sent again
    assert await ledger_of(client, subscriptions) == ledger
    assert list((await client.run_billing("third")).results) == []
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_an_invoicing_server_that_is_gone_changes_no_fact(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    subscriptions = await metered_subscriptions(client, 4)
    await invoicing.stop(grace_seconds=0)
    try:
        down = await client.run_billing("down")
    finally:
        await invoicing.start()
    ledger = await ledger_of(client, subscriptions)

    # The tests' service tries twice: a run may end before its channel has connected again.
    runs = await run_until_delivered(client)

    assert counts_of(down) == (0, 4, 0, 0)
    results = [result for run in (down, *runs) for result in run.results]
    reasons = {result.error_reason for result in results if result.status == FAILED}
    assert reasons == {"INVOICING_UNAVAILABLE"}
    delivered = {r.invoice_id: r.total_amount for r in results if r.status == SUCCEEDED}
    assert delivered == {i.id: i.total_amount for i in invoices_of(invoicing, client)}
    assert sum(delivered.values()) == sum(result.total_amount for result in down.results)
    assert await ledger_of(client, subscriptions) == ledger
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_two_months_without_invoicing_are_delivered_in_one_run(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await metered_subscriptions(client, 1)
    invoicing.error_rate = 1.0
    first = await client.run_billing("first")
    clock.advance(days=31)
    second = await client.run_billing("second")
    invoicing.error_rate = 0.0
    clock.advance(days=31)

    third = await client.run_billing("third")

    assert [len(run.results) for run in (first, second, third)] == [1, 2, 3]
    assert {run.status for run in (first, second)} == {RUN_FAILED}
    assert {result.status for result in third.results} == {SUCCEEDED}
    assert len({result.billing_period_id for result in third.results}) == 3
    assert len(invoices_of(invoicing, client)) == 3
    balance = await client.balance(subscription.id)
    assert balance.invoiced_amount == balance.outstanding_amount == 3 * 2000
    await assert_ledger_explains(client, invoicing, subscription.id)


@pytest.mark.parametrize("drop_reply_rate", [1.0, 0.5])
async def test_a_dropped_reply_never_makes_a_second_invoice(
    client: BillingClient, invoicing: ReferenceInvoicingServer, drop_reply_rate: float
) -> None:
    """The issue: dropped replies never make two invoices."""
    subscriptions = await metered_subscriptions(client, 8)
    invoicing.drop_reply_rate = drop_reply_rate
    first = await client.run_billing("dropping")
    made = {invoice.id for invoice in invoices_of(invoicing, client)}
    assert len(made) == 8  # every invoice was made, whatever became of the reply
    if drop_reply_rate == 1.0:
        assert counts_of(first) == (0, 8, 0, 0)
    invoicing.drop_reply_rate = 0.0

    await run_until_delivered(client)

    assert {invoice.id for invoice in invoices_of(invoicing, client)} == made
    for subscription in subscriptions:
        balance = await client.balance(subscription.id)
        assert balance.invoiced_amount == balance.outstanding_amount
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_runs_against_a_flaky_service_deliver_everything_once(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """The issue: error_rate 0.3 with a seed over several runs until all is delivered."""
    subscriptions = await metered_subscriptions(client, 30)
    invoicing._random = random.Random(4)
    invoicing.error_rate = 0.3
    invoicing.drop_reply_rate = 0.3

    runs = await run_until_delivered(client)

    assert len(runs) > 1  # two attempts an invoice: some of 30 fail at these rates
    delivered = [r for run in runs for r in run.results if r.status == SUCCEEDED]
    assert len(delivered) == len({r.billing_period_id for r in delivered}) == 30
    assert {r.invoice_id for r in delivered} == {i.id for i in invoices_of(invoicing, client)}
    for number, run in enumerate(runs[1:], start=1):
        # A run takes exactly what the last one left.
        left = [r.billing_period_id for r in runs[number - 1].results if r.status == FAILED]
        assert {r.billing_period_id for r in run.results} == set(left)
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_a_refused_customer_fails_its_own_result_alone(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    subscriptions = await metered_subscriptions(client, 3)
    invoicing.refused_customer_ids.add("cus-1")
    calls_before = invoicing.create_call_count

    run = await client.run_billing("refused")

    assert run.status == RUN_FAILED
    assert counts_of(run) == (2, 1, 0, 0)
    refused = results_by_subscription(run)[subscriptions[1].id]
    assert (refused.status, refused.error_reason) == (FAILED, "INVOICE_REFUSED")
    assert "customer cus-1 has no billing address" in refused.error_message
    assert (refused.invoice_id, refused.total_amount) == ("", 2002)
    assert invoicing.create_call_count - calls_before == 3  # a refusal is not tried again

    invoicing.refused_customer_ids.clear()
    mended = await client.run_billing("mended")

    assert (mended.status, counts_of(mended)) == (COMPLETED, (1, 0, 0, 0))
    assert mended.results[0].billing_period_id == refused.billing_period_id
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_a_cancelled_subscriptions_last_invoice_is_delivered_as_well(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1)
    invoicing.error_rate = 1.0
    cancelled = await client.cancel(subscription.id, immediately=True)
    assert (await client.get_run(cancelled.run_id)).status == RUN_FAILED
    invoicing.error_rate = 0.0

    run = await client.run_billing()

    assert (run.status, counts_of(run)) == (COMPLETED, (2, 0, 0, 0))  # February and the cut March
    assert len(invoices_of(invoicing, client)) == 2
    await assert_ledger_explains(client, invoicing, subscription.id)
