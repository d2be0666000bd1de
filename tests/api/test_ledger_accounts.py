"""What is in each account of a subscription: the entries add up to the balance, at any moment."""

from datetime import timedelta

from billing.v1 import ledger_pb2 as pb
from tests.factories.client import BillingClient, timestamp
from tests.factories.clock import START, FakeClock
from tests.factories.credits import credits_of, grant_credit
from tests.factories.ledger_story import LedgerStory, tell_story
from tests.factories.ledger_views import account_balances, totals_of
from tests.factories.refusals import refusal_of

RECEIVABLE = pb.LEDGER_ACCOUNT_KIND_RECEIVABLE
CREDIT = pb.LEDGER_ACCOUNT_KIND_CREDIT
REFUND_CLEARING = pb.LEDGER_ACCOUNT_KIND_REFUND_CLEARING
UNKNOWN = "sub_01h455vb4pex5vsknk084sn02q"


async def accounts_of(story: LedgerStory, **fields: object) -> pb.GetAccountBalancesResponse:
    return await account_balances(story.client, story.subscription_id, **fields)


async def test_the_totals_are_those_of_the_balance_at_every_moment(
    client: BillingClient, clock: FakeClock
) -> None:
    story = await tell_story(client, clock)
    nets = set()
    for moment in [*story.moments, None]:
        at = timestamp(moment) if moment else None
        told = await accounts_of(story, as_of=at)
        balance = await client.balance(story.subscription_id, as_of=moment)
        assert totals_of(told) == totals_of(balance), moment
        assert at is None or told.as_of == at
        nets.add(told.net_amount)
    assert len(nets) > 5


async def test_every_account_is_told_of_and_adds_up(
    client: BillingClient, clock: FakeClock
) -> None:
    story = await tell_story(client, clock)
    told = await accounts_of(story)
    accounts = list(told.account_balances)
    assert [a.account_kind for a in accounts].count(RECEIVABLE) == 1
    assert [a.account_kind for a in accounts].count(REFUND_CLEARING) == 1
    of_credits = {a.usage_credit_id: a for a in accounts if a.account_kind == CREDIT}
    credits_ = {credit.id: credit for credit in await credits_of(client, story.subscription_id)}
    assert of_credits.keys() == credits_.keys()
    for credit_id, account in of_credits.items():
        credit = credits_[credit_id]
        assert account.available_amount == credit.remaining_amount
        assert account.posted_amount == credit.remaining_amount + credit.held_amount
        assert account.account_id == credit_id.replace("credit_", "account_")
    assert sum(a.posted_amount for a in of_credits.values()) == told.credit_balance_amount
    assert [a.opened_at.ToMicroseconds() for a in accounts] == sorted(
        a.opened_at.ToMicroseconds() for a in accounts
    )
    assert all(a.usage_credit_id == "" for a in accounts if a.account_kind != CREDIT)


async def test_what_is_pending_is_told_apart(client: BillingClient, clock: FakeClock) -> None:
    """A refund of 20 holds that much of a top-up of 70 until it is confirmed."""
    story = await tell_story(client, clock)
    pending = [
        account
        for account in (await accounts_of(story)).account_balances
        if account.pending_amount != account.posted_amount
    ]
    [held] = pending
    assert (held.posted_amount, held.pending_amount, held.available_amount) == (70, 50, 50)


async def test_accounts_that_are_not_open_yet_are_not_told_of(
    client: BillingClient, clock: FakeClock
) -> None:
    story = await tell_story(client, clock)
    counts = [
        len((await accounts_of(story, as_of=timestamp(moment))).account_balances)
        for moment in story.moments
    ]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == len((await accounts_of(story)).account_balances) == 9


async def test_credit_of_which_nothing_can_be_spent_is_not_available(
    client: BillingClient, clock: FakeClock
) -> None:
    story = await tell_story(client, clock)
    before = await accounts_of(story)
    await grant_credit(client, story.subscription_id, 10, expires_at=clock.now + timedelta(hours=1))
    during = await accounts_of(story)
    assert during.available_credit_amount == before.available_credit_amount + 10
    clock.advance(hours=2)
    after = await accounts_of(story)
    assert after.available_credit_amount == before.available_credit_amount
    assert after.credit_balance_amount == before.credit_balance_amount + 10


async def test_a_moment_in_the_future_is_refused(client: BillingClient, clock: FakeClock) -> None:
    plan_id = await client.create_plan()
    subscription = await client.subscribe(plan_id)
    future = timestamp(START + timedelta(seconds=1))
    refusal = await refusal_of(account_balances(client, subscription.id, as_of=future))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["as_of"]


async def test_an_unknown_subscription_is_not_found(client: BillingClient) -> None:
    refusal = await refusal_of(account_balances(client, UNKNOWN))
    assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
