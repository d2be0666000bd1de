"""Billing runs with credits over several periods, repeats, failures and neighbours."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import usage_pb2
from tests.factories.billing_runs import (
    APRIL,
    COMPLETED,
    FAILED,
    FEBRUARY,
    JANUARY,
    MARCH,
    RUN_FAILED,
    SUCCEEDED,
    counts_of,
    metered_plan,
    results_by_subscription,
)
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_tampering import damaged_account
from tests.factories.credited_subscription import (
    AVAILABLE,
    FULLY_USED,
    GRANT_EXPIRED,
    PARTIALLY_USED,
    CreditedSubscription,
    february,
    lines_of,
    subscribe_credited,
)
from tests.factories.credits import applications, credit, expire_credits, grant_credit

DECEMBER = datetime(2025, 12, 1, tzinfo=FEBRUARY.tzinfo)


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription without a base price, on the first of February."""
    return await subscribe_credited(client, clock, invoicing)


async def test_missed_periods_are_paid_oldest_first(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    metered = await subscribe_credited(client, clock, invoicing, started_at=DECEMBER)
    credit = await metered.grant(250, effective_at=DECEMBER)
    for start in (DECEMBER, JANUARY, FEBRUARY):
        await metered.use(100, start)
    clock.set(APRIL)

    run = await client.run_billing()

    assert (run.status, counts_of(run)) == (COMPLETED, (4, 0, 0, 0))
    assert [result.total_amount for result in run.results] == [0, 0, 50, 0]
    periods = [result.billing_period_id for result in run.results]
    applied = [(a.billing_period_id, a.amount_applied) for a in await metered.applications()]
    assert applied == [(periods[0], 100), (periods[1], 100), (periods[2], 50)]
    assert (await metered.now(credit)).status == FULLY_USED
    await metered.audit()


async def test_another_run_applies_nothing_again(metered: CreditedSubscription) -> None:
    await metered.grant(800)
    await metered.use(500, february(10))
    await metered.bill("run-1")
    entries = await metered.entries()

    again = await metered.client.run_billing("run-1")
    later = await metered.client.run_billing("run-2")

    assert len(again.results) == 1
    assert list(later.results) == []
    assert await metered.entries() == entries
    await metered.audit()


async def test_credits_stay_applied_when_the_invoice_cannot_be_delivered(
    metered: CreditedSubscription, invoicing: ReferenceInvoicingServer
) -> None:
    credit = await metered.grant(200)
    await metered.use(500, february(10))
    invoicing.error_rate = 1.0
    assert (await metered.bill("run-1")).status == FAILED
    assert (await metered.now(credit)).status == FULLY_USED
    entries = await metered.entries()
    invoicing.error_rate = 0.0

    await metered.client.run_billing("run-2")

    assert await metered.entries() == entries
    [invoice] = metered.invoices()
    assert lines_of(invoice)[-1] == ("Credits applied", -200)
    await metered.audit()


async def test_billing_one_subscription_consumes_its_credits(metered: CreditedSubscription) -> None:
    await metered.grant(200)
    await metered.use(500, february(10))
    metered.reach(MARCH)

    result = await metered.client.run_for_subscription(metered.id)

    assert (result.status, result.total_amount) == (SUCCEEDED, 300)
    await metered.audit()


async def test_late_usage_is_paid_with_the_first_part_of_the_open_period(
    metered: CreditedSubscription,
) -> None:
    """A credit that begins within the open period does not pay what came late into it."""
    await metered.use(10, february(10))
    await metered.bill("february")
    early, later = await metered.grant(30), await metered.grant(500, effective_at=MARCH)
    within = await metered.grant(500, effective_at=MARCH.replace(day=20), priority=-1)
    late = await metered.use(100, february(10))

    await metered.bill("march")

    event = await metered.client.usage.GetUsageEvent(
        usage_pb2.GetUsageEventRequest(
            tenant_id=metered.client.tenant_id, usage_event_id=late.usage_event_id
        )
    )
    assert event.usage_event.disposition == usage_pb2.USAGE_EVENT_DISPOSITION_RATED_LATE
    assert await metered.payments_of(early=early, later=later, within=within) == [
        ("early", "calls", 30),
        ("later", "calls", 70),
    ]
    await metered.audit()


async def test_one_subscription_that_cannot_be_billed_stops_nobodys_credits(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """Its usage fits the ledger by itself, and no longer beside its base price."""
    first = await subscribe_credited(client, clock, invoicing)
    last = replace(first, id=(await client.subscribe(first.plan_id, started_at=FEBRUARY)).id)
    huge = await metered_plan(
        client, base_price_amount=10**15, unit_price="1000000000", included="0"
    )
    unbillable = await client.subscribe(huge.plan_id, started_at=FEBRUARY)
    await client.use(unbillable.id, huge.meter_id, "1000000", FEBRUARY)
    untouched = await grant_credit(client, unbillable.id, 5000, effective_at=FEBRUARY)
    for each in (first, last):
        await each.grant(200)
        await each.use(500, february(10))
    clock.set(MARCH)

    run = await client.run_billing()

    assert (run.status, counts_of(run)) == (RUN_FAILED, (2, 1, 0, 0))
    results = results_by_subscription(run)
    assert results[first.id].total_amount == results[last.id].total_amount == 300
    assert results[unbillable.id].error_reason == "AMOUNT_OUT_OF_RANGE"
    assert (await credit(client, untouched.id)).status == AVAILABLE
    assert await applications(client, unbillable.id) == []
    await first.audit()
    await last.audit()


async def test_a_credit_whose_books_are_damaged_fails_its_subscription_alone(
    metered: CreditedSubscription, database_url: str
) -> None:
    """The database refuses what the run writes for one subscription of the batch."""
    created = [
        await metered.client.subscribe(metered.plan_id, started_at=FEBRUARY) for _ in range(2)
    ]
    everybody = [metered, *[replace(metered, id=each.id) for each in created]]
    granted = [await each.grant(200) for each in everybody]
    for each in everybody:
        await each.use(500, february(10))
    metered.reach(MARCH)

    async with damaged_account(database_url, granted[1]):
        run = await metered.client.run_billing("run-1")

    results = results_by_subscription(run)
    assert results[everybody[1].id].error_reason == "SUBSCRIPTION_UNBILLABLE"
    assert (run.status, counts_of(run)) == (RUN_FAILED, (2, 1, 0, 0))
    assert (await everybody[1].now(granted[1])).remaining_amount == 200
    [again] = (await metered.client.run_billing("run-2")).results
    assert (again.subscription_id, again.total_amount) == (everybody[1].id, 300)
    for each in everybody:
        await each.audit()


async def test_what_is_billed_ahead_of_time_expires_nothing_ahead_of_time(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """Test data may be billed as of the future; the credit goes on until its own time."""
    metered = await subscribe_credited(client.in_test_mode(), clock, invoicing)
    credit = await metered.grant(100, expires_at=february(20))
    await metered.use(30, february(10))

    run = await metered.client.run_billing(as_of=MARCH)

    assert [result.total_amount for result in run.results] == [0]
    assert (await metered.now(credit)).status == PARTIALLY_USED
    assert await metered.entries(GRANT_EXPIRED) == []
    clock.set(february(20))
    assert (await expire_credits(metered.client, metered.id)).expired_count == 1
    assert [entry.amount for entry in await metered.entries(GRANT_EXPIRED)] == [-70]
    await metered.audit()


async def test_usage_by_time_is_found_however_far_clocks_are_apart(
    metered: CreditedSubscription, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries that seem older than their period are read in a second attempt."""
    monkeypatch.setattr("billing.store.credit_applications._CLOCK_MARGIN", timedelta(days=-1))
    await metered.grant(100, expires_at=february(15))
    await metered.use(30, february(10))
    await metered.use(40, february(20))

    assert (await metered.bill_lines())[-1] == ("Credits applied", -30)
    await metered.audit()
