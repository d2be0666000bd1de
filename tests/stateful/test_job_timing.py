"""The result of a history does not depend on when credits are expired and periods are billed.

The same history is told twice, at the same times: to one tenant whose periods are billed just
before the next operation and whose credits nobody expires, and to one whose periods are billed at
any moment after their ends and whose credits are expired again and again in between. Usage arrives
before the end of any credit that it could have been paid with: late usage is paid by a credit that
nobody has expired yet. And where a period was paid too much, so that its run makes a credit of the
rest, both are billed at the same time: a credit begins when it is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.client import BillingClient, error_info
from tests.factories.clock import START, FakeClock
from tests.factories.credit_audit import Figures, expected_figures, final_figures
from tests.factories.credit_histories import (
    Request,
    Step,
    on_the_hour,
    refusals_of,
    request,
    without_late_usage,
)
from tests.factories.credit_history_strategies import (
    CHANGES,
    histories,
    histories_count,
    is_soak,
    plans,
)
from tests.factories.credit_story import Story, started_at
from tests.factories.credits import expire_credits
from tests.factories.reference_books import Plan
from tests.factories.reference_ledger import ReferenceSubscription

AFTER_JOBS = timedelta(milliseconds=1)
"""Jobs that are done at the moment of an operation are done by then: every look at the clock moves
it on."""


@dataclass(frozen=True)
class Operation:
    """Something asked of a subscription at a moment; ``ended_at`` is the last due period's end.

    ``refusals`` are the reasons for which it must be refused, if it must.
    """

    at: datetime
    subscription: int
    request: Request
    ended_at: datetime | None
    refusals: frozenset[str]


@dataclass(frozen=True)
class History:
    """What is asked, when all is compared, and what must have come of it, if that is known.

    ``is_billed_late`` is one whose periods are to be billed just before the next operation.
    """

    operations: Sequence[Operation]
    end: datetime
    expected: Sequence[Figures] | None = None
    is_billed_late: bool = False


@dataclass(frozen=True)
class Schedule:
    """When jobs are done before an operation, in hundredths of the time since the one before.

    ``billed`` is the part of the time since the end of the last due period.
    """

    expired: Sequence[int]
    billed: int


SCHEDULES = st.builds(
    Schedule,
    expired=st.lists(st.integers(0, 99), max_size=3),
    billed=st.integers(0, 99),
)


def written(plans_: Sequence[Plan], steps: Sequence[Step]) -> History:
    """Tell a history to the reference, until every period has ended that there is by then."""
    references = [
        ReferenceSubscription(plan, started_at(plan), number > 0)
        for number, plan in enumerate(plans_)
    ]
    operations: list[Operation] = []
    now = START
    for step in steps:
        now = on_the_hour(now, step.hours) if step.hours else now + timedelta(minutes=1)
        reference = references[step.subscription]
        for asked in step.requests(reference, now):
            each = without_late_usage(asked, reference, now)
            ended_at = bill_due(references, now)
            refusals = refusals_of(each, reference, now + AFTER_JOBS)
            operations.append(Operation(now, step.subscription, each, ended_at, refusals))
            if refusals:
                break
            now += timedelta(minutes=1)
    end = max(now, *[reference.ends_at(now) for reference in references])
    bill_due(references, end)
    for reference in references:
        reference.expire(end)
    expected = [expected_figures(each, end) for each in references]
    is_billed_late = any("surplus_credited" in each.amounts_by_type for each in expected)
    return History(operations, end, expected, is_billed_late)


def bill_due(references: Sequence[ReferenceSubscription], now: datetime) -> datetime | None:
    """Bill what is due, and return when the last such period ended."""
    ends: list[datetime] = []
    for reference in references:
        if reference.is_due(now):
            reference.run(now)
            ends.append(max(p.end for p in reference.periods if p.billed_at is not None))
    return max(ends, default=None)


async def told(
    story: Story, history: History, schedules: Sequence[Schedule] | None
) -> list[Figures]:
    """Tell a history to the service; without schedules credits are never expired but at the end."""
    before = START
    for number, operation in enumerate(history.operations):
        if schedules is not None:
            schedule = schedules[number % len(schedules)]
            if history.is_billed_late:
                schedule = replace(schedule, billed=100)
            await do_jobs(story, schedule, before, operation)
        elif operation.ended_at is not None:
            story.clock.set(operation.at)
            await run(story)
        story.clock.set(max(operation.at + AFTER_JOBS, story.clock.now))
        served = story.served[operation.subscription]
        try:
            await served.ask(operation.request)
            reason = ""
        except grpc.aio.AioRpcError as error:
            reason = error_info(error).reason
        assert reason in (operation.refusals or {""}), f"{operation}: {reason}"
        await served.learn_periods()
        await served.learn_credits()
        before = operation.at + timedelta(seconds=1)
    story.clock.set(history.end)
    await run(story)
    await expire_credits(story.client)
    return [await final_figures(served, story.invoicing) for served in story.served]


async def do_jobs(story: Story, schedule: Schedule, before: datetime, operation: Operation) -> None:
    """Expire credits and bill periods between two operations."""
    gap = operation.at - before
    jobs: list[tuple[datetime, str]] = [
        (before + gap * part / 100, "expire") for part in schedule.expired if gap > timedelta(0)
    ]
    if operation.ended_at is not None:
        ended_at = max(before, operation.ended_at)
        jobs.append((ended_at + (operation.at - ended_at) * schedule.billed / 100, "bill"))
    for at, job in sorted(jobs):
        story.clock.set(max(at, story.clock.now))
        if job == "bill":
            await run(story)
        else:
            assert (await expire_credits(story.client)).failed_count == 0


async def run(story: Story) -> None:
    """Bill all that is due."""
    await story.bill()
    for served in story.served:
        await served.learn_periods()
        await served.learn_credits()


@pytest.fixture(scope="module")
def parts(
    channel: grpc.aio.Channel,
    signing_key: DevelopmentKey,
    session_clock: FakeClock,
    session_invoicing: ReferenceInvoicingServer,
) -> dict[str, Any]:
    """What every history is told with."""
    return {
        "channel": channel,
        "key": signing_key,
        "clock": session_clock,
        "invoicing": session_invoicing,
    }


async def assert_timing_does_not_matter(
    parts: dict[str, Any], plans_: Sequence[Plan], history: History, schedules: Sequence[Schedule]
) -> None:
    """Tell a history with jobs at their latest, and with jobs at other times."""
    outcomes = []
    for jobs in (None, schedules):
        client = BillingClient(parts["channel"], parts["key"])
        story = await Story.begin(client, parts["clock"], parts["invoicing"], plans_)
        outcomes.append(await told(story, history, jobs))
    for late, early in zip(*outcomes, strict=True):
        assert late == early, f"{late} with late jobs, {early} with early ones"
    if history.expected is not None:
        assert outcomes[0] == history.expected, f"{outcomes[0]}, not {history.expected}"


@settings(
    max_examples=histories_count(10),
    deadline=None,
    derandomize=not is_soak(),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    st.lists(plans(), min_size=2, max_size=2),
    histories(CHANGES, longest=14),
    st.lists(SCHEDULES, min_size=3, max_size=12),
)
async def test_it_does_not_matter_when_jobs_run(
    parts: dict[str, Any], plans_: list[Plan], steps: list[Step], schedules: list[Schedule]
) -> None:
    await assert_timing_does_not_matter(parts, plans_, written(plans_, steps), schedules)


WEEK = Plan(7, 0, (("1", "0"), ("1", "0")))
"""Without a base price, and a unit costs one."""


def at(hour: int, action: str, **arguments: Any) -> tuple[datetime, Request]:
    """Something asked so many hours after the beginning."""
    return START + timedelta(hours=hour), request(action, **arguments)


def used(hour: int, amount: int) -> tuple[datetime, Request]:
    """Usage that costs so much."""
    return at(hour, "use", events=[(0, str(amount), START + timedelta(hours=hour))])


def granted(
    hour: int, amount: int, *, until: int | None = None, priority: int = 0
) -> tuple[datetime, Request]:
    """A credit from now on."""
    expires_at = None if until is None else START + timedelta(hours=until)
    return at(hour, "grant", amount=amount, expires_at=expires_at, priority=priority)


SETTLED_AND_REFUNDED = [
    granted(1, 100, until=6),
    used(2, 30),
    at(3, "begin_payment", amount=30, period=0),
    at(4, "confirm_payment", number=0, token="charge"),
    at(5, "begin_refund", number=0, amount=30, policy="revert_all"),
]
TOP_UPS_AND_A_HOLD = [
    at(1, "begin_payment", amount=30),
    at(2, "confirm_payment", number=0, token="charge"),
    at(3, "begin_payment", amount=30),
    at(4, "confirm_payment", number=1, token="charge"),
    granted(5, 1, until=8),
    at(6, "begin_refund", number=0, amount=20, policy="revert_unused"),
    used(7, 25),
]
USED_ON_BOTH_SIDES_OF_AN_EXPIRY = [
    granted(1, 1, until=4),
    granted(1, 10, until=6, priority=1),
    granted(1, 100, priority=2),
    used(2, 20),
    used(5, 20),
]
PAID_IN_PART_AND_RAISED = [
    granted(1, 10),
    used(2, 20),
    at(3, "adjust", number=0, amount=10),
    granted(3, 1, until=4),
    granted(6, 100, priority=1),
]


@pytest.mark.parametrize(
    ("story", "is_realtime", "expired_part"),
    [
        pytest.param(
            [*TOP_UPS_AND_A_HOLD, at(12, "fail_refund", number=0)], False, 50, id="a hold ends"
        ),
        pytest.param(
            [*SETTLED_AND_REFUNDED, at(9, "confirm_refund", number=0, token="return")],
            False,
            50,
            id="a settlement is reversed",
        ),
        pytest.param(
            [*PAID_IN_PART_AND_RAISED, used(9, 10)],
            True,
            50,
            id="more usage",
        ),
        pytest.param(
            [*USED_ON_BOTH_SIDES_OF_AN_EXPIRY, at(9, "void", number=2)],
            False,
            20,  # between the two expiries
            id="another credit is voided",
        ),
    ],
)
async def test_what_comes_after_an_expiry_finds_it_done(
    parts: dict[str, Any],
    story: list[tuple[datetime, Request]],
    is_realtime: bool,
    expired_part: int,
) -> None:
    """The last operation changes what there is to pay before an expiry, or to pay it with."""
    operations = [
        Operation(moment, int(is_realtime), each, None, frozenset()) for moment, each in story
    ]
    jobs = [Schedule([], 0)] * (len(story) - 1) + [Schedule([expired_part], 0)]
    history = History(operations, START + timedelta(days=8))
    await assert_timing_does_not_matter(parts, [WEEK, WEEK], history, jobs)
