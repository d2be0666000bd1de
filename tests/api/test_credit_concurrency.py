"""Many callers change the credits of one subscription at once: some order explains the end."""

import asyncio
import copy
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import permutations

import grpc.aio
import pytest

from billing.bootstrap import RunningService
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.client import BillingClient
from tests.factories.clock import START, FakeClock
from tests.factories.credit_audit import Figures, expected_figures, final_figures
from tests.factories.credit_changes import adjust_credit
from tests.factories.credit_histories import Request, request
from tests.factories.credit_story import Story
from tests.factories.credits import applications, create_refund, credit
from tests.factories.ledger_audit import assert_ledger_explains
from tests.factories.reference_books import Plan
from tests.factories.reference_ledger import ReferenceSubscription
from tests.factories.reference_subscription import Refused
from tests.factories.refusals import outcome_of

CLIENTS = 16
EACH = 10
PAID = 100
PLAN = Plan(3, 60, (("1", "0"), ("1", "0")))


@pytest.fixture
async def clients(
    client: BillingClient, service: RunningService
) -> AsyncIterator[list[BillingClient]]:
    """Callers of one tenant, each with a connection of its own."""
    assert service.address is not None
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(service.address, options=options)
            )
            for _ in range(CLIENTS)
        ]
        yield [replace(client, channel=channel) for channel in channels]


@dataclass(frozen=True)
class Topped:
    """A realtime subscription with one paid credit of 100."""

    story: Story
    credit_id: str
    payment_id: str

    @property
    def subscription_id(self) -> str:
        """The subscription."""
        return self.story.served[1].id

    def decrease(self, client: BillingClient) -> Awaitable[object]:
        """Take 10 back."""
        return adjust_credit(client, self.credit_id, -EACH)

    def refund(self, client: BillingClient) -> Awaitable[object]:
        """Refund 10, and hold what is left for it."""
        return create_refund(client, self.payment_id, EACH)

    def use(self, client: BillingClient) -> Awaitable[object]:
        """Use what costs 10."""
        served = self.story.served[1]
        return client.use(served.id, served.meter_ids[0], str(EACH), START - timedelta(hours=1))

    async def audited(self) -> tuple[int, int, int]:
        """Return what is left, held and applied, after an audit of the books."""
        await assert_ledger_explains(self.story.client, self.story.invoicing, self.subscription_id)
        left = await credit(self.story.client, self.credit_id)
        applied = await applications(self.story.client, self.subscription_id)
        return left.remaining_amount, left.held_amount, sum(each.amount_applied for each in applied)


@pytest.fixture
async def topped(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> Topped:
    """The subscription; the credit is from before the usage."""
    story = await Story.begin(client, clock, invoicing, [PLAN, PLAN])
    clock.set(START - timedelta(hours=2))
    served = story.served[1]
    await served.ask(request("begin_payment", amount=PAID))
    await served.ask(request("confirm_payment", number=0, token="charge"))
    clock.set(START)
    return Topped(story, served.credit_ids[0], served.payment_ids[0])


async def test_sixteen_callers_cannot_take_back_more_than_there_is(
    topped: Topped, clients: list[BillingClient]
) -> None:
    outcomes = await asyncio.gather(*[outcome_of(topped.decrease(each)) for each in clients])
    assert sorted(outcomes) == [""] * 10 + ["CREDIT_BALANCE_INSUFFICIENT"] * 6
    assert await topped.audited() == (0, 0, 0)


async def test_sixteen_callers_cannot_refund_more_than_was_paid(
    topped: Topped, clients: list[BillingClient]
) -> None:
    outcomes = await asyncio.gather(*[outcome_of(topped.refund(each)) for each in clients])
    assert sorted(outcomes) == [""] * 10 + ["REFUND_EXCEEDS_PAYMENT"] * 6
    assert await topped.audited() == (0, PAID, 0)


async def test_usage_of_sixteen_callers_is_paid_as_far_as_the_credit_goes(
    topped: Topped, clients: list[BillingClient]
) -> None:
    outcomes = await asyncio.gather(*[outcome_of(topped.use(each)) for each in clients])
    assert outcomes == [""] * CLIENTS
    assert await topped.audited() == (0, 0, PAID)
    balance = await topped.story.client.balance(topped.subscription_id)
    assert balance.unbilled_amount == CLIENTS * EACH - PAID


@pytest.mark.parametrize("seed", range(4))
async def test_whoever_is_first_has_the_credit(
    topped: Topped, clients: list[BillingClient], seed: int
) -> None:
    rng = random.Random(seed)
    kinds = [topped.decrease, topped.refund, topped.use]
    chosen: list[Callable[[BillingClient], Awaitable[object]]] = rng.choices(kinds, k=CLIENTS)
    calls = [call(each) for call, each in zip(chosen, clients, strict=True)]
    outcomes = await asyncio.gather(*[outcome_of(call) for call in calls])
    done = [call for call, outcome in zip(chosen, outcomes, strict=True) if not outcome]
    assert set(outcomes) <= {"", "CREDIT_BALANCE_INSUFFICIENT"}
    assert all(call in done for call in chosen if call != topped.decrease)
    remaining, held, applied = await topped.audited()
    assert remaining == max(0, PAID - CLIENTS * EACH) == 0
    assert held + applied + EACH * done.count(topped.decrease) == PAID
    assert held <= EACH * chosen.count(topped.refund)
    assert applied <= EACH * chosen.count(topped.use)


@dataclass(frozen=True)
class Round:
    """A subscription with a due period; requests to make at once, some after each other."""

    before: Sequence[tuple[int, Request]]
    at_once: Sequence[Sequence[Request]]


ENDS_AT = 24
"""Hours after START when the period ends."""


def round_of(rng: random.Random) -> Round:
    """A round with random amounts: a run, an expiry, a refund and an adjustment at once."""
    amount = rng.choice
    events = [
        (number % 2, str(amount([7, 20, 45])), START - timedelta(hours=2 * number))
        for number in range(3)
    ]
    settled = amount([None, 0])
    policy = amount(["revert_unused", "revert_all", "keep"])
    at_once = [
        [request("run_one")],
        [request("expire")],
        [
            request("begin_refund", number=0, amount=amount([30, 50]), policy=policy),
            request("confirm_refund", number=0, token="return"),
        ],
        [
            request(
                "adjust",
                number=3,
                amount=amount([-70, -40, 15]),
                allow_deficit=amount([False, True]),
            )
        ],
    ]
    rng.shuffle(at_once)
    return Round(
        before=[
            (1, request("use", events=events)),
            (2, request("grant", amount=amount([10, 60]), effective_at=START, expires_at=_at(6))),
            (3, request("grant", amount=amount([10, 60]), expires_at=_at(ENDS_AT), priority=1)),
            (3, request("grant", amount=15, expires_at=_at(ENDS_AT + 2), covers_charges=True)),
            (4, request("begin_payment", amount=amount([50, 120]), period=settled)),
            (4, request("confirm_payment", number=0, token="charge")),
            (5, request("use", events=[(0, "25", _at(5)), (1, "5", _at(4))])),
        ],
        at_once=at_once,
    )


def _at(hours: int) -> datetime:
    return START + timedelta(hours=hours)


def serial_outcomes(
    reference: ReferenceSubscription, told: Round, now: datetime
) -> list[tuple[dict[str, frozenset[str]], Figures]]:
    """Return the refusals and the figures of every order of the requests."""
    queue = [number for number, requests in enumerate(told.at_once) for _ in requests]
    outcomes = []
    for order in set(permutations(queue)):
        played = copy.deepcopy(reference)
        waiting = [list(requests) for requests in told.at_once]
        refusals: dict[str, frozenset[str]] = {}
        for number in order:
            each = waiting[number].pop(0)
            try:
                each.play(played, now)
                refusals[each.action] = frozenset({""})
            except Refused as refusal:
                refusals[each.action] = refusal.reasons
        outcomes.append((refusals, expected_figures(played, now)))
    return outcomes


@pytest.mark.parametrize("is_realtime", [False, True])
@pytest.mark.parametrize("seed", range(8))
async def test_some_order_explains_what_was_done_at_once(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    seed: int,
    is_realtime: bool,
) -> None:
    """A run, an expiry, a refund with its confirmation, and an adjustment, at the same time."""
    told = round_of(random.Random(seed))
    story = await Story.begin(client, clock, invoicing, [PLAN, PLAN])
    served, reference = story.served[is_realtime], story.references[is_realtime]
    for hours, each in told.before:
        clock.set(max(_at(hours), clock.now))
        assert await story.ask(served, reference, each) == ""
    now = _at(ENDS_AT + 3)
    clock.set(now)

    async def ask_in_turn(requests: Sequence[Request]) -> dict[str, str]:
        return {each.action: await outcome_of(served.ask(each)) for each in requests}

    answers = await asyncio.gather(*[ask_in_turn(requests) for requests in told.at_once])
    outcomes = {action: reason for answer in answers for action, reason in answer.items()}
    figures = await final_figures(served, invoicing)
    assert any(
        figures == expected and all(reason in refusals[a] for a, reason in outcomes.items())
        for refusals, expected in serial_outcomes(reference, told, clock.now)
    ), f"no order of the requests gives {outcomes} and {figures}"
    assert (await client.trial_balance()).difference_amount == 0
