"""What tests of billing runs share: due subscriptions, outcomes, deliveries held halfway."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2, subscription_pb2
from tests.factories.client import BillingClient, component

JANUARY, FEBRUARY, MARCH, APRIL, MAY = (
    datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 6)
)
"""Starts of months; the tests' clock begins in the middle of March."""

RUNNING = billing_run_pb2.BILLING_RUN_STATUS_RUNNING
COMPLETED = billing_run_pb2.BILLING_RUN_STATUS_COMPLETED
RUN_FAILED = billing_run_pb2.BILLING_RUN_STATUS_FAILED

PENDING = billing_run_pb2.BILLING_RUN_RESULT_STATUS_PENDING
SUCCEEDED = billing_run_pb2.BILLING_RUN_RESULT_STATUS_SUCCEEDED
FAILED = billing_run_pb2.BILLING_RUN_RESULT_STATUS_FAILED
SKIPPED = billing_run_pb2.BILLING_RUN_RESULT_STATUS_SKIPPED

_POLL_SECONDS = 0.02


def one_period_ago() -> datetime:
    """When a monthly subscription began that has one due period, by the clock on the wall."""
    return datetime.now(UTC) - timedelta(days=40)


async def until(condition: Callable[[], Awaitable[Any]], *, deadline_seconds: float = 60.0) -> None:
    """Return when the condition holds; fails at the deadline."""
    async with asyncio.timeout(deadline_seconds):
        while not await condition():  # noqa: ASYNC110 - it is true in another process
            await asyncio.sleep(_POLL_SECONDS)


@dataclass
class DeliveryGate:
    """Holds the calls that arrive at the invoicing server, before anything is done.

    The first ``passing_count`` calls pass.
    """

    passing_count: int = 0
    waiting_count: int = 0
    _opened: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self) -> None:
        """Let the calls go on, and all later ones."""
        self._opened.set()

    async def hold(self, context: object) -> None:
        """Wait until the gate is open."""
        if self.passing_count > 0:
            self.passing_count -= 1
            return
        self.waiting_count += 1
        await self._opened.wait()

    async def until_waiting(self, count: int) -> None:
        """Return when so many calls have arrived."""

        async def arrived() -> bool:
            return self.waiting_count >= count

        await until(arrived)


@contextmanager
def held_deliveries(
    invoicing: ReferenceInvoicingServer, *, passing_count: int = 0
) -> Iterator[DeliveryGate]:
    """Hold calls at the invoicing server until the gate is opened, or the block ends."""
    gate = DeliveryGate(passing_count)
    passing = invoicing._pass_switches
    invoicing._pass_switches = gate.hold  # type: ignore[method-assign]
    try:
        yield gate
    finally:
        invoicing._pass_switches = passing  # type: ignore[method-assign]
        gate.open()


@contextmanager
def failing_after(invoicing: ReferenceInvoicingServer, count: int) -> Iterator[None]:
    """Let some calls pass, and fail all others before anything is done."""
    passing, left = invoicing._pass_switches, [count]

    async def pass_some(context: "grpc.aio.ServicerContext[object, object]") -> None:
        left[0] -= 1
        if left[0] < 0:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "out of order")

    invoicing._pass_switches = pass_some  # type: ignore[method-assign]
    try:
        yield
    finally:
        invoicing._pass_switches = passing  # type: ignore[method-assign]


@dataclass(frozen=True)
class MeteredPlan:
    """A plan with one metered component, and its meter."""

    plan_id: str
    meter_id: str


async def metered_plan(
    client: BillingClient,
    *,
    base_price_amount: int = 2000,
    unit_price: str = "2",
    included: str = "1000",
    **version: Any,
) -> MeteredPlan:
    """Create a meter and a plan: 2000 a month, and 2 for each API call over 1,000."""
    meter_id = await client.create_meter()
    plan_id = await client.create_plan(
        base_price_amount=base_price_amount,
        components=[component(meter_id, unit_price=unit_price, included=included)],
        **version,
    )
    return MeteredPlan(plan_id, meter_id)


async def due_subscriptions(
    client: BillingClient, count: int, *, started_at: datetime = FEBRUARY, **plan: Any
) -> list[subscription_pb2.Subscription]:
    """Create subscriptions of one plan, whose February is due; customers are cus-0, cus-1, ..."""
    plan_id = await client.create_plan(**plan)
    return [
        await client.subscribe(plan_id, started_at=started_at, customer_id=f"cus-{number}")
        for number in range(count)
    ]


def results_by_subscription(
    run: billing_run_pb2.BillingRun,
) -> dict[str, billing_run_pb2.BillingRunResult]:
    """Return the results of a run that has one a subscription."""
    results = {result.subscription_id: result for result in run.results}
    assert len(results) == len(run.results)
    return results


def counts_of(run: billing_run_pb2.BillingRun) -> tuple[int, int, int, int]:
    """Return how many results succeeded, failed, were skipped and are pending."""
    assert run.processed_count == run.succeeded_count + run.failed_count + run.skipped_count
    return run.succeeded_count, run.failed_count, run.skipped_count, run.pending_count


async def start_run(
    client: BillingClient,
    request_id: str = "run-1",
    *,
    wait: timedelta | None = timedelta(0),
    run_type: int = billing_run_pb2.BILLING_RUN_TYPE_MANUAL,
) -> billing_run_pb2.BillingRun:
    """Start a run without waiting for its end, or for some time only; return the answer."""
    wait_timeout = Duration()
    if wait is not None:
        wait_timeout.FromTimedelta(wait)
    answer = await client.billing_runs.RunBilling(
        billing_run_pb2.RunBillingRequest(
            tenant_id=client.tenant_id,
            run_type=billing_run_pb2.BillingRunType.ValueType(run_type),
            request_id=request_id,
            wait_timeout=None if wait is None else wait_timeout,
        )
    )
    return answer.billing_run  # type: ignore[no-any-return]


async def ended_run(client: BillingClient, run_id: str) -> billing_run_pb2.BillingRun:
    """Wait for the end of a run, and return it with its results."""

    async def has_ended() -> bool:
        return (await client.get_run(run_id)).status != RUNNING

    await until(has_ended)
    return await client.get_run(run_id)
