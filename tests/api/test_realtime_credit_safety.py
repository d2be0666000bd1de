"""Pay as you go among repeats, refusals, races and failures: paid once, or not at all."""

import asyncio

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.billing_runs import MARCH
from tests.factories.client import BillingClient, usage_event
from tests.factories.clock import FakeClock
from tests.factories.credit_tampering import damaged_account
from tests.factories.credited_subscription import (
    APPLIED_TO_USAGE,
    FULLY_USED,
    USAGE_COST,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import expire_credits
from tests.factories.refusals import refusal_of
from tests.factories.usage import outcomes_of


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A pay-as-you-go subscription without a base price, on the first of February."""
    return await subscribe_credited(client, clock, invoicing, is_realtime=True)


async def test_duplicates_write_nothing(metered: CreditedSubscription) -> None:
    await metered.grant(500)
    metered.reach(february(10))
    event = metered.event(120, february(10))
    answer = await metered.send(event, event)
    assert outcomes_of(answer.results) == ["accepted", "duplicate"]
    entries = await metered.entries()
    assert len(entries) == 3  # the grant, the cost, its payment

    assert outcomes_of((await metered.send(event)).results) == ["duplicate"]

    assert await metered.entries() == entries
    assert len(await metered.applications()) == 1
    await metered.audit()


async def test_what_is_refused_takes_nothing(metered: CreditedSubscription) -> None:
    await metered.grant(500)
    metered.reach(february(10))
    unknown = usage_event(metered.id, "meter_01h455vb4pex5vsknk084sn02q", "9", february(10))
    answer = await metered.send(unknown, metered.event(7, february(10)))
    assert outcomes_of(answer.results) == ["rejected", "accepted"]
    assert [each.amount_applied for each in await metered.applications()] == [7]


async def test_calls_at_the_same_time_share_what_there_is(metered: CreditedSubscription) -> None:
    credits_ = [await metered.grant(100), await metered.grant(55, priority=1)]
    metered.reach(february(10))

    await asyncio.gather(*[metered.send(metered.event(20, february(10))) for _ in range(12)])

    assert len(await metered.entries(USAGE_COST)) == 12
    applied = await metered.applications()
    assert sum(each.amount_applied for each in applied) == 155
    for each in credits_:
        assert (await metered.now(each)).status == FULLY_USED
    assert (await metered.client.balance(metered.id)).unbilled_amount == 240 - 155
    await metered.audit()


async def test_usage_expiry_and_billing_at_the_same_time_leave_books_that_add_up(
    metered: CreditedSubscription,
) -> None:
    await metered.grant(90, expires_at=february(15))
    await metered.grant(60, priority=1)
    await metered.use(10, february(10))
    metered.reach(MARCH)

    others = [
        asyncio.create_task(metered.client.run_billing()),
        *[asyncio.create_task(expire_credits(metered.client)) for _ in range(4)],
    ]
    answers = await asyncio.gather(
        *[metered.send(metered.event(20, february(10))) for _ in range(8)]
    )
    await asyncio.gather(*others)

    assert sum(answer.accepted_count for answer in answers) == 8
    assert sum(entry.amount for entry in await metered.entries(USAGE_COST)) == -170
    await metered.audit()
    await metered.bill("the rest")
    await metered.audit()


async def test_usage_and_credits_are_written_together_or_not_at_all(
    metered: CreditedSubscription, database_url: str
) -> None:
    """001#7: "The operation is atomic"."""
    credit = await metered.grant(500)
    metered.reach(february(10))
    event = metered.event(120, february(10))

    async with damaged_account(database_url, credit):
        refusal = await refusal_of(metered.send(event))

    assert refusal.code == "INTERNAL"
    assert await metered.entries(USAGE_COST, APPLIED_TO_USAGE) == []
    assert (await metered.client.balance(metered.id)).unbilled_amount == 0
    assert outcomes_of((await metered.send(event)).results) == ["accepted"]
    assert await metered.payments_of(credit=credit) == [("credit", "calls", 120)]
    await metered.audit()
