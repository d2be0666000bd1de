"""GetBillingRun, ListBillingRuns and ListBillingRunResults."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2 as pb
from billing.v1 import catalog_pb2
from tests.factories.billing_runs import (
    COMPLETED,
    FAILED,
    JANUARY,
    RUN_FAILED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    counts_of,
    due_subscriptions,
    ended_run,
    held_deliveries,
    start_run,
)
from tests.factories.client import BillingClient, error_info, violated_fields
from tests.factories.clock import FakeClock

MANUAL = pb.BILLING_RUN_TYPE_MANUAL
SCHEDULED = pb.BILLING_RUN_TYPE_SCHEDULED
SINGLE = pb.BILLING_RUN_TYPE_SINGLE
DAILY = catalog_pb2.BillingInterval(unit=catalog_pb2.BILLING_INTERVAL_UNIT_DAY, count=1)


async def list_runs(client: BillingClient, **filters: Any) -> pb.ListBillingRunsResponse:
    request = pb.ListBillingRunsRequest(tenant_id=client.tenant_id, **filters)
    return await client.billing_runs.ListBillingRuns(request)  # type: ignore[no-any-return]


async def list_results(
    client: BillingClient, run_id: str, **filters: Any
) -> pb.ListBillingRunResultsResponse:
    request = pb.ListBillingRunResultsRequest(tenant_id=client.tenant_id, run_id=run_id, **filters)
    return await client.billing_runs.ListBillingRunResults(request)  # type: ignore[no-any-return]


async def test_a_run_comes_with_its_results(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "GetBillingRun returns run with results", "Get billing run returns complete run with
    results"."""
    subscriptions = await due_subscriptions(client, 3)
    invoicing.refused_customer_ids.add("cus-2")
    started = await start_run(client, wait=None)

    answer = await client.billing_runs.GetBillingRun(
        pb.GetBillingRunRequest(tenant_id=client.tenant_id, run_id=started.id)
    )

    run = answer.billing_run
    assert answer.next_page_token == ""
    assert {result.subscription_id for result in run.results} == {s.id for s in subscriptions}
    assert counts_of(run) == (2, 1, 0, 0)
    listed = (await list_results(client, run.id)).results
    assert list(listed) == list(run.results)
    del run.results[:]
    assert run == started  # RunBilling returns the same without results
    assert list((await list_runs(client)).billing_runs) == [started]


async def test_a_run_that_does_not_exist_is_not_found(client: BillingClient) -> None:
    """004: "GetBillingRun returns NOT_FOUND for missing run"."""
    unknown = "run_01h455vb4pex5vsknk084sn02q"
    calls: list[Callable[[], Any]] = [
        lambda: client.get_run(unknown),
        lambda: list_results(client, unknown),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call()
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        info = error_info(refused.value)
        assert info.reason == "BILLING_RUN_NOT_FOUND"
        assert info.metadata["resource_id"] == unknown


@pytest.mark.parametrize("run_id", ["", "run_", "sub_01h455vb4pex5vsknk084sn02q", "42"])
async def test_a_malformed_run_id_is_refused(client: BillingClient, run_id: str) -> None:
    for call in (client.get_run(run_id), list_results(client, run_id)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_fields(refused.value) == ["run_id"]


async def test_runs_are_listed_by_status_and_type(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """004: "ListBillingRuns filters by status and type", "List billing runs filters by status",
    "List billing runs filters by type"."""
    [first, second] = await due_subscriptions(client, 2)
    single = await client.run_for_subscription(first.id)
    invoicing.refused_customer_ids.add(second.customer_id)
    failed = await client.run_billing("failed", run_type=SCHEDULED)
    invoicing.refused_customer_ids.clear()
    scheduled = await client.run_billing("scheduled", run_type=SCHEDULED)
    manual = await client.run_billing("manual", run_type=MANUAL)

    async def ids(**filters: Any) -> list[str]:
        return [run.id for run in (await list_runs(client, **filters)).billing_runs]

    assert await ids() == [manual.id, scheduled.id, failed.id, single.run_id]
    assert await ids(status=COMPLETED) == [manual.id, scheduled.id, single.run_id]
    assert await ids(status=RUN_FAILED) == [failed.id]
    assert await ids(status=RUNNING) == []
    assert await ids(run_type=MANUAL) == [manual.id]
    assert await ids(run_type=SCHEDULED) == [scheduled.id, failed.id]
    assert await ids(run_type=SINGLE) == [single.run_id]
    assert await ids(run_type=SCHEDULED, status=RUN_FAILED) == [failed.id]
    assert await ids(run_type=MANUAL, status=RUN_FAILED) == []


async def test_a_run_is_listed_while_it_runs(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    await due_subscriptions(client, 1)
    with held_deliveries(invoicing) as gate:
        run = await start_run(client)
        await gate.until_waiting(1)
        [listed] = (await list_runs(client, status=RUNNING)).billing_runs
        assert listed.id == run.id
        assert counts_of(listed) == (0, 0, 0, 1)
        assert not listed.HasField("completed_at")
        assert list((await list_runs(client, status=COMPLETED)).billing_runs) == []
        gate.open()
        ended = await ended_run(client, run.id)
    assert ended.status == COMPLETED


async def test_runs_come_in_pages(client: BillingClient) -> None:
    """004: "ListBillingRuns pagination works correctly", "List billing runs pagination works"."""
    made = [(await start_run(client, f"run-{number}", wait=None)).id for number in range(5)]

    listed: list[list[str]] = []
    page_token = ""
    while True:
        page = await list_runs(client, page_size=2, page_token=page_token)
        listed.append([run.id for run in page.billing_runs])
        page_token = page.next_page_token
        if not page_token:
            break
        if len(listed) == 1:  # a run that is made meanwhile moves nothing
            await start_run(client, "meanwhile", wait=None)

    made.reverse()
    assert listed == [made[:2], made[2:4], made[4:]]


async def test_pages_keep_to_their_filters(client: BillingClient) -> None:
    types = [MANUAL, SCHEDULED, MANUAL, SCHEDULED, MANUAL]
    made = [
        (await start_run(client, f"run-{number}", wait=None, run_type=run_type)).id
        for number, run_type in enumerate(types)
    ]

    first = await list_runs(client, run_type=MANUAL, page_size=2)
    second = await list_runs(client, run_type=MANUAL, page_size=2, page_token=first.next_page_token)

    pages = [[run.id for run in page.billing_runs] for page in (first, second)]
    assert pages == [[made[4], made[2]], [made[0]]]
    assert second.next_page_token == ""
    for other in ({"run_type": SCHEDULED}, {"run_type": MANUAL, "status": COMPLETED}, {}):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await list_runs(client, page_token=first.next_page_token, **other)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_fields(refused.value) == ["page_token"]


@pytest.mark.parametrize("page_token", ["?", "AAAA", "x" * 1025])
async def test_a_made_up_page_token_is_refused(client: BillingClient, page_token: str) -> None:
    run = await start_run(client, wait=None)
    for call in (
        list_runs(client, page_token=page_token),
        list_results(client, run.id, page_token=page_token),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_fields(refused.value) == ["page_token"]


async def test_page_sizes_have_their_bounds(client: BillingClient) -> None:
    run = await start_run(client, wait=None)
    for call in (list_runs(client, page_size=-1), list_results(client, run.id, page_size=-1)):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violated_fields(refused.value) == ["page_size"]
    assert len((await list_runs(client, page_size=1_000_000)).billing_runs) == 1


async def test_results_are_listed_by_outcome_and_in_pages(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    await due_subscriptions(client, 5)
    invoicing.refused_customer_ids.update(["cus-1", "cus-3"])
    run = await client.run_billing()

    assert len((await list_results(client, run.id, status=SUCCEEDED)).results) == 3
    assert len((await list_results(client, run.id, status=FAILED)).results) == 2
    assert len((await list_results(client, run.id, status=SKIPPED)).results) == 0
    listed: list[pb.BillingRunResult] = []
    page_token = ""
    while True:
        page = await list_results(client, run.id, page_size=2, page_token=page_token)
        assert len(page.results) <= 2
        listed.extend(page.results)
        page_token = page.next_page_token
        if not page_token:
            break
    assert listed == list(run.results)
    first = await list_results(client, run.id, page_size=2)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await list_results(client, run.id, status=FAILED, page_token=first.next_page_token)
    assert violated_fields(refused.value) == ["page_token"]


async def test_a_run_returns_its_first_1000_results_and_a_token_for_the_rest(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    # 14 subscriptions with 73 missed days each: every period has its own result.
    await due_subscriptions(client, 14, started_at=JANUARY, base_price_amount=0, interval=DAILY)
    started = await start_run(client, wait=None)
    assert counts_of(started) == (14 * 73, 0, 0, 0)

    answer = await client.billing_runs.GetBillingRun(
        pb.GetBillingRunRequest(tenant_id=client.tenant_id, run_id=started.id)
    )
    rest = await list_results(client, started.id, page_size=1000, page_token=answer.next_page_token)

    results = [*answer.billing_run.results, *rest.results]
    assert len(answer.billing_run.results) == 1000
    assert len(rest.results) == 22
    assert rest.next_page_token == ""
    assert len({result.id for result in results}) == len(results)
