"""What balances and entries say over a subscription's life, in the requirements' own figures."""

from collections import Counter

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.billing_runs import MARCH
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    APPLIED_TO_USAGE,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.ledger_moves import type_name


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription of which only usage is charged."""
    return await subscribe_credited(client, clock, invoicing)


async def test_an_applied_credit_counts_once(metered: CreditedSubscription) -> None:
    """100 are paid and 60 used: 40 are left, before the credit is applied and after it. The sum of
    all amounts, 002's "SUM(amount)", would be 100."""
    await metered.top_up(100)
    await metered.use(60, february(10))
    before = await metered.client.balance(metered.id)
    assert (before.credit_balance_amount, before.outstanding_amount) == (100, 60)
    assert before.net_amount == 40

    await metered.bill()

    after = await metered.client.balance(metered.id)
    assert (after.credit_balance_amount, after.outstanding_amount) == (40, 0)
    assert after.net_amount == 40
    assert sum(entry.amount for entry in await metered.entries()) == 100
    await metered.audit()


async def test_the_ledger_of_a_subscription_goes_on_over_its_periods(
    metered: CreditedSubscription,
) -> None:
    """002, question 2: "a continuous financial history for the subscription"."""
    credit = await metered.top_up(100)
    await metered.use(30, february(10))
    await metered.bill("february")
    await metered.use(50, MARCH)
    await metered.bill("march")

    applied = await metered.entries(APPLIED_TO_USAGE)

    assert {entry.source_usage_credit_id for entry in applied} == {credit.id}
    periods = [entry.billing_period_id for entry in applied]
    assert len(set(periods)) == len(periods) == 2
    assert (await metered.client.balance(metered.id)).net_amount == 20
    await metered.audit()


async def test_entries_without_a_period_are_those_that_touch_nothing_owed(
    metered: CreditedSubscription,
) -> None:
    """002, 1.5: "Nullable, for entries not tied to a specific period (e.g. evergreen top-ups)"."""
    await metered.top_up(100)
    await metered.grant(50, expires_at=february(15))
    await metered.use(60, february(10))
    await metered.bill()

    entries = await metered.entries()

    with_period = {type_name(each.entry_type) for each in entries if each.billing_period_id}
    without = {type_name(each.entry_type) for each in entries if not each.billing_period_id}
    assert with_period == {"usage_cost", "credit_applied_to_usage"}
    assert without == {"payment_recognized", "credit_grant_recognized"}


async def test_a_call_of_many_events_has_one_application_for_each_credit_and_component(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """002, open question 5: events in real time are paid in a batch, not one by one."""
    realtime = await subscribe_credited(client, clock, invoicing, is_realtime=True)
    await realtime.grant(150)
    await realtime.grant(1000, priority=1)
    realtime.reach(february(10))
    meters = [realtime.calls, realtime.tokens]

    await realtime.send(*[realtime.event(1, february(10), meters[n % 2]) for n in range(400)])

    found = Counter(type_name(each.entry_type) for each in await realtime.entries())
    assert found["usage_cost"] == 400
    assert found["credit_applied_to_usage"] == len(await realtime.applications()) == 3
    assert (await realtime.client.balance(realtime.id)).outstanding_amount == 0
    await realtime.audit()
