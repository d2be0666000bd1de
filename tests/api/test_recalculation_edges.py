"""Corners of corrections and recalculations: payments, cuts, estimates, limits."""

from datetime import timedelta

import grpc
import grpc.aio
import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import calculation_pb2 as pb
from tests.factories.calculations import estimate, recalculate, void_event
from tests.factories.client import BillingClient, error_info
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment, expire_credits

MINUTE = timedelta(minutes=1)
LARGEST = 10**15


@pytest.fixture
async def held(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription of a plan that holds late usage."""
    return await subscribe_credited(client, clock, invoicing, holds_late_usage=True)


async def test_an_additional_invoice_that_was_paid_is_credited_not_voided(
    held: CreditedSubscription,
) -> None:
    await held.use(100, february(3))
    period_id = (await held.bill()).billing_period_id
    late = await held.use(40, february(20))
    first = await recalculate(held.client, held.id, period_id)
    invoice_id = first.recalculation.documents[0].document_id
    await create_payment(
        held.client, held.id, 40, billing_period_id=period_id, invoice_id=invoice_id
    )
    await void_event(held.client, late.usage_event_id)

    second = await recalculate(held.client, held.id, period_id)

    [document] = second.recalculation.documents
    assert document.kind == pb.RECALCULATION_DOCUMENT_KIND_CREDIT_NOTE
    assert (document.invoice_id, document.amount) == (invoice_id, -40)


async def test_an_unpaid_additional_invoice_is_voided(held: CreditedSubscription) -> None:
    await held.use(100, february(3))
    period_id = (await held.bill()).billing_period_id
    late = await held.use(40, february(20))
    await recalculate(held.client, held.id, period_id)
    await void_event(held.client, late.usage_event_id)
    second = await recalculate(held.client, held.id, period_id)
    [document] = second.recalculation.documents
    assert (document.kind, document.amount) == (pb.RECALCULATION_DOCUMENT_KIND_VOID, -40)


async def test_a_credit_that_paid_usage_beyond_a_cut_goes_on_paying_it(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    """The usage is counted in the last segment that the cancellation left: so is its credit."""
    realtime = await subscribe_credited(client, clock, invoicing, is_realtime=True)
    realtime.reach(february(15))
    await realtime.grant(50, effective_at=february(15) + 30 * MINUTE)
    await client.use(realtime.id, realtime.calls, "50", february(15) + 40 * MINUTE)
    clock.set(february(15) + 10 * MINUTE)
    cancelled = await client.cancel(realtime.id, immediately=True)
    [result] = (await client.get_run(cancelled.run_id)).results
    assert result.total_amount == 0
    assert not (await recalculate(client, realtime.id, result.billing_period_id)).changed


async def test_a_credit_that_an_estimate_holds_whole_expires_all_the_same(
    held: CreditedSubscription,
) -> None:
    granted = await held.grant(100, expires_at=february(10))
    await held.use(70, february(5))
    await estimate(held.client, held.id)
    await held.use(30, february(6))
    await estimate(held.client, held.id)
    assert (await held.now(granted)).remaining_amount == 0
    held.reach(february(12))
    await expire_credits(held.client, held.id)
    now = await held.now(granted)
    assert (now.remaining_amount, now.held_amount) == (0, 0)
    assert (await held.client.balance(held.id)).outstanding_amount == 0


async def test_a_period_never_totals_more_than_the_ledger_can_hold(
    held: CreditedSubscription,
) -> None:
    await held.use(1, february(3))
    period_id = (await held.bill()).billing_period_id
    await held.use(LARGEST - 2, february(4))
    assert (await recalculate(held.client, held.id, period_id)).changed
    await held.use(LARGEST - 2, february(4), held.tokens)
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await recalculate(held.client, held.id, period_id)
    assert error_info(refusal.value).reason == "AMOUNT_OUT_OF_RANGE"
    assert (await held.client.balance(held.id)).outstanding_amount == LARGEST - 1


async def test_a_released_payment_leaves_nothing_unpaid_for_credits_to_pay(
    held: CreditedSubscription,
) -> None:
    """It is of the component that costs less, so that recalculating again changes nothing."""
    top_up = await held.top_up(100)
    await held.use(30, february(3))
    wrong = await held.use(20, february(3))
    await held.use(50, february(3), held.tokens)
    period_id = (await held.get()).current_period_id
    held.reach(february(10))
    await create_payment(held.client, held.id, 100, billing_period_id=period_id)
    await held.bill()
    await void_event(held.client, wrong.usage_event_id)
    first = await recalculate(held.client, held.id, period_id)
    assert first.recalculation.net_change_amount == -20
    assert first.recalculation.released_amount == 20
    for _ in range(2):
        assert not (await recalculate(held.client, held.id, period_id)).changed
    assert (await held.now(top_up)).remaining_amount == 100
