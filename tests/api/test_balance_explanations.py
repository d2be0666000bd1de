"""Why a balance moved: groups of entries that add up to the difference of two balances."""

from datetime import datetime, timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import balance_explanation_pb2 as pb
from tests.factories.calculations import estimate, recalculate, recover, void_event, write_off
from tests.factories.client import BillingClient, moment
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjust_credit
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import confirm_refund, create_payment, create_refund, expire_credits
from tests.factories.explanations import explain_balance
from tests.factories.refusals import refusal_of

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
"""The clock moves by a microsecond whenever it is read."""
UNKNOWN = "sub_01h455vb4pex5vsknk084sn02q"


@pytest.fixture
async def rich(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription of which everything has happened that moves a balance, at 5.00 a month."""
    rich = await subscribe_credited(
        client, clock, invoicing, base_price_amount=500, holds_late_usage=True
    )
    promotion = await rich.grant(60, expires_at=february(15))
    used = await rich.use(100, february(3))
    payment = await create_payment(client, rich.id, 300)
    clock.advance(hours=1)
    await adjust_credit(client, promotion.id, -10)
    await rich.use(30, february(16), rich.tokens)
    await expire_credits(client, rich.id)
    await estimate(client, rich.id)
    period_id = (await rich.bill()).billing_period_id
    clock.advance(hours=1)
    await rich.use(40, february(20))
    await void_event(client, used.usage_event_id)
    clock.advance(hours=1)
    await recalculate(client, rich.id, period_id)
    clock.advance(hours=1)
    given_up = await write_off(client, rich.id, period_id, amount=50)
    clock.advance(hours=1)
    await recover(client, given_up.id, amount=20)
    clock.advance(hours=1)
    await create_payment(client, rich.id, 20, billing_period_id=period_id)
    refund = await create_refund(client, payment.id, 100)
    clock.advance(hours=1)
    await confirm_refund(client, refund.id)
    return rich


async def assert_explained(
    rich: CreditedSubscription, after: datetime | None, until: datetime | None
) -> pb.BalanceExplanation:
    """The balances are those of GetBalance, and the movements are their difference."""
    explained = await explain_balance(rich.client, rich.id, after, until)
    opening, closing = explained.opening, explained.closing
    for figures in (opening, closing):
        if figures.HasField("as_of"):
            told = await rich.client.balance(rich.id, as_of=moment(figures.as_of))
            assert figures == pb.BalanceFigures(
                as_of=told.as_of,
                outstanding_amount=told.outstanding_amount,
                credit_balance_amount=told.credit_balance_amount,
                net_amount=told.net_amount,
            )
    for name in ("outstanding", "credit_balance", "net"):
        moved = sum(getattr(each, f"{name}_change_amount") for each in explained.movements)
        before, after_ = (getattr(each, f"{name}_amount") for each in (opening, closing))
        assert after_ - before == moved
    kinds = [(each.entry_type, each.initiating_source_type) for each in explained.movements]
    assert kinds == sorted(set(kinds))
    return explained


async def test_from_the_beginning_everything_is_explained(rich: CreditedSubscription) -> None:
    explained = await assert_explained(rich, None, None)
    assert explained.currency == "USD"
    assert explained.subscription_id == rich.id
    assert not explained.opening.HasField("as_of")
    assert (explained.opening.net_amount, explained.opening.outstanding_amount) == (0, 0)
    assert rich.clock.now - moment(explained.closing.as_of) < SECOND
    posted = [entry for entry in await rich.entries() if entry.HasField("posted_at")]
    assert sum(each.entry_count for each in explained.movements) == len(posted)
    by_kind = {(m.entry_type, m.initiating_source_type): m for m in explained.movements}
    assert by_kind["billing_adjustment", "recalculation"].outstanding_change_amount == -60
    assert by_kind["receivable_written_off", "write_off"].net_change_amount == 50
    assert by_kind["receivable_written_off", "write_off_recovery"].net_change_amount == -20
    refunded = by_kind["payment_refunded", "refund"]
    assert (refunded.amount, refunded.net_change_amount) == (-100, 0)
    usage = by_kind["usage_cost", "usage_ingestion"]
    assert (usage.entry_count, usage.transaction_count, usage.amount) == (2, 2, -130)
    assert [t.amount for t in usage.transactions] == [-100, -30]
    assert usage.transactions[0].initiating_source_id.startswith("ingest_")


async def test_any_two_moments_add_up(rich: CreditedSubscription) -> None:
    moments = sorted({moment(e.posted_at) for e in await rich.entries() if e.HasField("posted_at")})
    assert len(moments) > 6
    for number, beginning in enumerate(moments):
        for end in moments[number:]:
            explained = await assert_explained(rich, beginning, end)
            if beginning == end:
                assert not explained.movements


async def test_what_is_posted_at_the_beginning_is_in_the_opening_balance(
    rich: CreditedSubscription,
) -> None:
    first = min(moment(e.posted_at) for e in await rich.entries() if e.HasField("posted_at"))
    explained = await assert_explained(rich, first, first + HOUR)
    assert explained.opening.credit_balance_amount == 60
    just_before = await assert_explained(rich, first - timedelta(microseconds=1), first + HOUR)
    assert just_before.opening.credit_balance_amount == 0


async def test_the_first_transactions_of_many_are_told(rich: CreditedSubscription) -> None:
    begun = rich.clock.now
    for _ in range(7):
        rich.clock.advance(minutes=1)
        await rich.use(1, rich.clock.now)
    explained = await assert_explained(rich, begun, None)
    [usage] = explained.movements
    assert (usage.transaction_count, usage.entry_count) == (7, 7)
    assert len(usage.transactions) == 5
    told = [moment(t.posted_at) for t in usage.transactions]
    assert told == sorted(told)
    assert told[0] - begun < timedelta(minutes=1) + SECOND


async def test_an_end_in_the_future_is_the_present(rich: CreditedSubscription) -> None:
    explained = await explain_balance(rich.client, rich.id, None, rich.clock.now + 1000 * HOUR)
    assert timedelta(0) <= rich.clock.now - moment(explained.closing.as_of) < SECOND
    assert explained.movements == (await explain_balance(rich.client, rich.id)).movements


async def test_a_beginning_after_the_end_is_refused(rich: CreditedSubscription) -> None:
    now = rich.clock.now
    refusal = await refusal_of(explain_balance(rich.client, rich.id, now, now - HOUR))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["posted_after"]
    assert now.isoformat() in refusal.message
    assert f"posted_until ({(now - HOUR).isoformat()})" in refusal.message


@pytest.mark.parametrize("until_hours", [None, 5])
async def test_a_beginning_in_the_future_is_refused(
    rich: CreditedSubscription, until_hours: int | None
) -> None:
    now = rich.clock.now
    until = None if until_hours is None else now + until_hours * HOUR
    refusal = await refusal_of(explain_balance(rich.client, rich.id, now + HOUR, until))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert f"the present ({now:%Y-%m-%dT%H:%M:%S}" in refusal.message


async def test_an_unknown_subscription_is_not_found(client: BillingClient) -> None:
    refusal = await refusal_of(explain_balance(client, UNKNOWN))
    assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")


@pytest.mark.parametrize("subscription_id", ["", "sub_1", "run_01h455vb4pex5vsknk084sn02q"])
async def test_a_malformed_id_is_refused(client: BillingClient, subscription_id: str) -> None:
    refusal = await refusal_of(explain_balance(client, subscription_id))
    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.fields == ["subscription_id"]
