"""RunBilling again and at the same time: each period has exactly one invoice."""

import asyncio
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2 as pb
from tests.factories.billing_runs import (
    COMPLETED,
    FEBRUARY,
    MARCH,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    counts_of,
    due_subscriptions,
    ended_run,
    held_deliveries,
    start_run,
    until,
)
from tests.factories.client import BillingClient, error_info, timestamp, violated_fields
from tests.factories.clock import FakeClock
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of


async def test_two_runs_at_once_and_repeats_make_one_invoice_a_period(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    """The issue: two concurrent RunBilling calls and a repeat with the same and with another
    request_id."""
    subscriptions = await due_subscriptions(client, 6)
    with held_deliveries(invoicing) as gate:
        calls = [
            asyncio.create_task(start_run(client, request_id, wait=None))
            for request_id in ("a", "b", "a", "c")
        ]
        await gate.until_waiting(6)

        async def all_are_there() -> bool:
            request = pb.ListBillingRunsRequest(tenant_id=client.tenant_id)
            return len((await client.billing_runs.ListBillingRuns(request)).billing_runs) == 3

        await until(all_are_there)  # all runs have begun, and one is delivering
        gate.open()
        answers = await asyncio.gather(*calls)

    assert answers[0] == answers[2]  # the same request_id is the same run
    runs = [await client.get_run(answers[index].id) for index in (0, 1, 3)]
    assert {run.status for run in runs} == {COMPLETED}
    [winner] = [run for run in runs if run.succeeded_count]
    assert counts_of(winner) == (6, 0, 0, 0)
    for loser in runs:
        if loser.id != winner.id:
            assert {result.status for result in loser.results} <= {SKIPPED}
            assert {result.taken_by_run_id for result in loser.results} <= {winner.id}
            assert counts_of(loser) == (0, 0, len(loser.results), 0)
    keys = [invoice.idempotency_key for invoice in invoices_of(invoicing, client)]
    assert sorted(keys) == sorted(s.current_period_id for s in subscriptions)
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_unheld_runs_at_once_bill_once(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    subscriptions = await due_subscriptions(client, 10)

    answers = await asyncio.gather(
        *(start_run(client, f"run-{number}", wait=None) for number in range(6))
    )

    results = [r for answer in answers for r in (await client.get_run(answer.id)).results]
    assert {result.status for result in results} <= {SUCCEEDED, SKIPPED}
    succeeded = {r.billing_period_id: r.invoice_id for r in results if r.status == SUCCEEDED}
    assert set(succeeded) == {s.current_period_id for s in subscriptions}
    assert {(i.idempotency_key, i.id) for i in invoices_of(invoicing, client)} == set(
        succeeded.items()
    )
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_skipped_results_name_the_run_that_has_the_period(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await due_subscriptions(client, 1)
    with held_deliveries(invoicing) as gate:
        first = await start_run(client, "first")
        await gate.until_waiting(1)
        second = await client.run_billing("second")
        gate.open()
        first = await ended_run(client, first.id)

    assert second.status == COMPLETED  # skipping is not failing
    [result] = second.results
    assert (result.status, result.taken_by_run_id) == (SKIPPED, first.id)
    assert result.billing_period_id == subscription.current_period_id
    assert (result.invoice_id, result.total_amount, result.error_reason) == ("", 0, "")
    assert result.HasField("completed_at")
    assert counts_of(first) == (1, 0, 0, 0)


async def test_a_repeat_returns_the_run_as_it_stands(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    await due_subscriptions(client, 1)
    with held_deliveries(invoicing) as gate:
        started = await start_run(client)
        await gate.until_waiting(1)
        repeated = await start_run(client)
        assert (repeated.id, repeated.status) == (started.id, RUNNING)
        gate.open()
        ended = await ended_run(client, started.id)
    clock.advance(days=31)  # April is due by now, but that is not what was asked for

    again = await start_run(client, wait=timedelta(minutes=1))

    del ended.results[:]
    assert again == ended
    assert len(invoices_of(invoicing, client)) == 1


async def test_waiting_is_not_part_of_what_a_request_id_stands_for(client: BillingClient) -> None:
    first = await start_run(client, wait=timedelta(0))
    assert (await start_run(client, wait=timedelta(seconds=5))).id == first.id
    assert (await start_run(client, wait=None)).id == first.id


@pytest.mark.parametrize(
    "other",
    [
        {"run_type": pb.BILLING_RUN_TYPE_SCHEDULED},
        {"as_of": timestamp(FEBRUARY)},
        {"run_type": pb.BILLING_RUN_TYPE_SCHEDULED, "as_of": timestamp(MARCH)},
    ],
)
async def test_a_request_id_with_other_content_is_refused(
    client: BillingClient, other: dict[str, object]
) -> None:
    """The issue: the same request_id with other content is INVALID_ARGUMENT."""
    await start_run(client, "run-1", wait=None)
    content = {"run_type": pb.BILLING_RUN_TYPE_MANUAL, **other}

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.billing_runs.RunBilling(
            pb.RunBillingRequest(
                tenant_id=client.tenant_id,
                request_id="run-1",
                **content,  # type: ignore[arg-type]
            )
        )

    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(refused.value) == ["request_id"]
    assert error_info(refused.value).reason == "REQUEST_ID_REUSED"


async def test_a_refused_request_does_not_use_up_its_request_id(
    client: BillingClient, clock: FakeClock
) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await client.run_billing("run-1", as_of=clock.now + timedelta(days=1))
    assert (await client.run_billing("run-1")).status == COMPLETED


async def test_a_request_id_is_a_tenants_and_a_modes_own(client: BillingClient) -> None:
    others = [client.in_test_mode(), client.for_tenant(f"{client.tenant_id}-other")]
    runs = [await start_run(caller, "run-1", wait=None) for caller in (client, *others)]
    assert len({run.id for run in runs}) == 3


async def test_without_waiting_the_run_is_still_running_and_ends_by_itself(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    subscriptions = await due_subscriptions(client, 2)
    with held_deliveries(invoicing) as gate:
        started = await start_run(client, wait=timedelta(0))
        assert started.status == RUNNING
        assert counts_of(started) == (0, 0, 0, 2)
        await gate.until_waiting(2)
        gate.open()
        run = await ended_run(client, started.id)

    assert (run.status, counts_of(run)) == (COMPLETED, (2, 0, 0, 0))
    await assert_ledger_explains(client, invoicing, *(s.id for s in subscriptions))


async def test_a_wait_that_is_over_returns_the_run_as_it_stands(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    await due_subscriptions(client, 1)
    with held_deliveries(invoicing) as gate:
        started = await start_run(client, wait=timedelta(seconds=0.05))
        assert started.status == RUNNING
        await gate.until_waiting(1)
        gate.open()
        assert (await ended_run(client, started.id)).status == COMPLETED


async def test_a_wait_ends_before_the_callers_deadline(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    await due_subscriptions(client, 1)
    request = pb.RunBillingRequest(
        tenant_id=client.tenant_id, run_type=pb.BILLING_RUN_TYPE_MANUAL, request_id="run-1"
    )
    with held_deliveries(invoicing) as gate:
        answer = await client.billing_runs.RunBilling(request, timeout=1.5)
        assert answer.billing_run.status == RUNNING
        gate.open()
        assert (await ended_run(client, answer.billing_run.id)).status == COMPLETED


async def test_a_caller_who_goes_away_stops_nothing(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    await due_subscriptions(client, 2)
    with held_deliveries(invoicing) as gate:
        request = pb.RunBillingRequest(
            tenant_id=client.tenant_id, run_type=pb.BILLING_RUN_TYPE_MANUAL, request_id="run-1"
        )
        call = client.billing_runs.RunBilling(request)
        waiting = asyncio.ensure_future(call)
        await gate.until_waiting(2)
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.open()
        run = await ended_run(client, (await start_run(client)).id)

    assert (run.status, counts_of(run)) == (COMPLETED, (2, 0, 0, 0))
    assert len(invoices_of(invoicing, client)) == 2


@pytest.mark.parametrize(
    "wait_timeout", [Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=601)]
)
async def test_a_wait_below_zero_or_above_ten_minutes_is_refused(
    client: BillingClient, wait_timeout: Duration
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.billing_runs.RunBilling(
            pb.RunBillingRequest(
                tenant_id=client.tenant_id,
                run_type=pb.BILLING_RUN_TYPE_MANUAL,
                request_id="run-1",
                wait_timeout=wait_timeout,
            )
        )
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violated_fields(refused.value) == ["wait_timeout"]
