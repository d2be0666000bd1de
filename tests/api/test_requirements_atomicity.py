"""Whatever moves money happens whole or not at all: a failing commit leaves no row behind."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import refund_pb2, usage_credit_pb2
from tests.factories.billing_runs import MARCH
from tests.factories.calculations import amend, estimate, recalculate, recover, write_off
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjust_credit, void_credit
from tests.factories.credited_subscription import (
    EXPIRED,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import (
    confirm_payment,
    confirm_refund,
    create_payment,
    create_refund,
    expire_credits,
)
from tests.factories.ledger_moves import type_name
from tests.factories.refusals import refusal_of
from tests.factories.refused_entries import refused_entries
from tests.factories.tenant_rows import rows_of

Act: TypeAlias = Callable[[], Awaitable[object]]
Story: TypeAlias = Callable[[CreditedSubscription], Awaitable[Act]]

OF_RUNS = {"billing_runs", "billing_run_results"}
"""What tells that a run took place and failed: written beside what it bills."""
REVERT_ALL = refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL
CLAWBACK = usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_TYPE_CLAWBACK_ERROR


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription for 2000 a month whose plan holds late usage."""
    return await subscribe_credited(
        client, clock, invoicing, base_price_amount=2000, holds_late_usage=True
    )


async def ingestion(metered: CreditedSubscription) -> Act:
    metered.reach(february(10))
    event = metered.event(100, february(10))
    return lambda: metered.send(event)


async def correction(metered: CreditedSubscription) -> Act:
    await metered.grant(60)
    used = await metered.use(100, february(10))
    return lambda: amend(metered.client, used.usage_event_id, "40", request_id="amend-1")


async def grant(metered: CreditedSubscription) -> Act:
    return lambda: metered.grant(100, request_id="grant-1")


async def top_up(metered: CreditedSubscription) -> Act:
    payment = await create_payment(metered.client, metered.id, 500, confirm=False)
    return lambda: confirm_payment(metered.client, payment.id, request_id="confirm-1")


async def settlement(metered: CreditedSubscription) -> Act:
    period_id = (await metered.get()).current_period_id
    await metered.use(100, february(10))
    payment = await create_payment(
        metered.client, metered.id, 500, billing_period_id=period_id, confirm=False
    )
    return lambda: confirm_payment(metered.client, payment.id, request_id="confirm-1")


async def void(metered: CreditedSubscription) -> Act:
    credit = await metered.grant(100)
    return lambda: void_credit(metered.client, credit.id, request_id="void-1")


async def deficit(metered: CreditedSubscription) -> Act:
    credit = await metered.grant(100)
    return lambda: adjust_credit(
        metered.client,
        credit.id,
        -150,
        allow_deficit=True,
        adjustment_type=CLAWBACK,
        request_id="adjust-1",
    )


async def refund(metered: CreditedSubscription) -> Act:
    payment = await create_payment(metered.client, metered.id, 500)
    return lambda: create_refund(metered.client, payment.id, 200, request_id="refund-1")


async def refund_confirmation(metered: CreditedSubscription) -> Act:
    period_id = (await metered.get()).current_period_id
    await metered.use(100, february(10))
    payment = await create_payment(metered.client, metered.id, 300, billing_period_id=period_id)
    begun = await create_refund(metered.client, payment.id, 300, credit_policy=REVERT_ALL)
    return lambda: confirm_refund(metered.client, begun.id, request_id="refund-1")


async def interim_estimate(metered: CreditedSubscription) -> Act:
    await metered.grant(60)
    await metered.use(100, february(10))
    return lambda: estimate(metered.client, metered.id, request_id="estimate-1")


async def recalculation(metered: CreditedSubscription) -> Act:
    await metered.grant(60)
    used = await metered.use(100, february(10))
    billed = await metered.bill()
    await metered.use(40, february(20))
    await amend(metered.client, used.usage_event_id, "10")
    return lambda: recalculate(
        metered.client, metered.id, billed.billing_period_id, request_id="recalculate-1"
    )


async def giving_up(metered: CreditedSubscription) -> Act:
    billed = await metered.bill()
    return lambda: write_off(
        metered.client, metered.id, billed.billing_period_id, request_id="write-off-1"
    )


async def recovery(metered: CreditedSubscription) -> Act:
    billed = await metered.bill()
    given_up = await write_off(metered.client, metered.id, billed.billing_period_id)
    return lambda: recover(metered.client, given_up.id, request_id="recover-1")


@pytest.mark.parametrize(
    ("story", "entry_type"),
    [
        (ingestion, "usage_cost"),
        (correction, "usage_cost_corrected"),
        (grant, "credit_grant_recognized"),
        (top_up, "payment_recognized"),
        (settlement, "credit_applied_to_usage"),
        (void, "credit_balance_adjusted"),
        (deficit, "credit_deficit_charged"),
        (refund, "payment_refunded"),
        (refund_confirmation, "credit_application_reversed"),
        (interim_estimate, "credit_applied_to_usage"),
        (recalculation, "billing_adjustment"),
        (giving_up, "receivable_written_off"),
        (recovery, "receivable_written_off"),
    ],
)
async def test_what_fails_leaves_nothing_and_can_be_asked_for_again(
    metered: CreditedSubscription, database_url: str, story: Story, entry_type: str
) -> None:
    """002, open question 4: "within a single database transaction"; 001#14: "All operations are
    atomic"."""
    act = await story(metered)
    tenant_id = metered.client.tenant_id
    before = await rows_of(database_url, metered.client)

    async with refused_entries(database_url, tenant_id, entry_type):
        refusal = await refusal_of(act())

    assert refusal.code == "INTERNAL"
    assert await rows_of(database_url, metered.client) == before
    await act()
    assert await rows_of(database_url, metered.client) != before
    assert entry_type in {type_name(each.entry_type) for each in await metered.entries()}
    assert (await metered.client.trial_balance()).difference_amount == 0


async def rows_but_runs(url: str, client: BillingClient) -> dict[str, list[str]]:
    """Return all that the database holds of a tenant, but its runs."""
    rows = await rows_of(url, client)
    return {table: found for table, found in rows.items() if table not in OF_RUNS}


async def test_a_period_is_billed_whole_or_not_at_all(
    metered: CreditedSubscription, database_url: str
) -> None:
    """001#15: "operations are transactional, likely per subscription per period"."""
    await metered.grant(60, expires_at=february(20))
    await metered.use(100, february(10))
    metered.reach(MARCH)
    tenant_id = metered.client.tenant_id
    before = await rows_but_runs(database_url, metered.client)

    async with refused_entries(database_url, tenant_id, "charge_billed"):
        run = await metered.client.run_billing("run-1")

    assert [result.error_reason for result in run.results] == ["SUBSCRIPTION_UNBILLABLE"]
    assert await rows_but_runs(database_url, metered.client) == before
    assert (await metered.bill("run-2")).total_amount == 2040
    await metered.audit()


async def test_credits_of_a_subscription_expire_whole_or_not_at_all(
    metered: CreditedSubscription, database_url: str
) -> None:
    """001#12: "Transactions should be per-grant or well-batched"; the call goes on with others."""
    credit = await metered.grant(100, expires_at=february(15))
    await metered.use(30, february(10))
    metered.reach(february(16))
    tenant_id = metered.client.tenant_id
    before = await rows_of(database_url, metered.client)

    async with refused_entries(database_url, tenant_id, "credit_grant_expired"):
        assert (await expire_credits(metered.client, metered.id)).failed_count == 1

    assert await rows_of(database_url, metered.client) == before
    await expire_credits(metered.client, metered.id)
    assert (await metered.now(credit)).status == EXPIRED
    assert await metered.payments_of(credit=credit) == [("credit", "calls", 30)]
    await metered.audit()
