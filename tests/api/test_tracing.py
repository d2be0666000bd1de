"""One call is one trace: RPC, use case, transactions, the worker's batch, the invoicing service."""

from datetime import UTC, datetime

import grpc.aio
import pytest
from opentelemetry import trace

from billing.bootstrap import RunningService
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import billing_run_pb2 as pb
from billing.v1 import billing_run_pb2_grpc
from tests.factories.billing_runs import until
from tests.factories.client import BillingClient
from tests.factories.spans import Recording, recording, trace_id

RPC = "billing.v1.BillingRunService"
BATCH = "process bill_batch"
CREATE_INVOICE = "invoicing.v1.InvoicingService/CreateInvoice"
STARTED = datetime(2026, 2, 1, tzinfo=UTC)


async def subscribe(client: BillingClient, count: int) -> list[str]:
    """Subscriptions whose first period is due."""
    plan = await client.create_plan()
    return [
        (await client.subscribe(plan, started_at=STARTED, customer_id=f"cus-{number}")).id
        for number in range(count)
    ]


async def run_billing(client: BillingClient, *metadata: tuple[str, str]) -> pb.BillingRun:
    """Run billing, with metadata beside the credentials."""
    stub = billing_run_pb2_grpc.BillingRunServiceStub(client.channel)
    answer = await stub.RunBilling(
        pb.RunBillingRequest(
            tenant_id=client.tenant_id, run_type=pb.BILLING_RUN_TYPE_MANUAL, request_id="run-1"
        ),
        metadata=[("authorization", f"Bearer {client.token}"), *metadata],
    )
    return answer.billing_run


async def whole_batches(spans: Recording, count: int = 1) -> None:
    """Return when the batches have ended: their call is answered a moment earlier."""

    async def ended() -> bool:
        return len(spans.named(BATCH)) >= count

    await until(ended)


async def test_a_billing_run_is_one_trace(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    await subscribe(client, 3)
    with recording() as spans:
        run = await run_billing(client)
        await whole_batches(spans)
    assert run.succeeded_count == 3

    rpc = spans.one(f"{RPC}/RunBilling")
    use_case = spans.one("BillingRunService.run_billing")
    batch = spans.one(BATCH)
    assert {trace_id(span) for span in spans.spans} == {trace_id(rpc)}
    assert use_case in spans.children(rpc)
    assert batch in spans.children(use_case)
    assert batch.kind is trace.SpanKind.CONSUMER
    assert batch.attributes is not None
    assert batch.attributes["billing.run_id"] == run.id
    assert batch.attributes["billing.tenant_id"] == client.tenant_id

    below_the_batch = [span.name for span in spans.children(batch)]
    assert below_the_batch.count(CREATE_INVOICE) == 3
    assert below_the_batch.count("transaction") == 3  # post, record, look whether anything is left
    # Looking whether the run has ended leaves no spans: one transaction started it.
    assert [span.name for span in spans.children(use_case)] == ["transaction", BATCH]


async def test_the_trace_is_that_of_the_caller(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    await subscribe(client, 1)
    callers = f"{0xABCDEF:032x}"
    with recording() as spans:
        await run_billing(client, ("traceparent", f"00-{callers}-{0x123:016x}-01"))
        await whole_batches(spans)
    assert {trace_id(span) for span in spans.spans} == {callers}
    parent = spans.one(f"{RPC}/RunBilling").parent
    assert parent is not None
    assert parent.span_id == 0x123


async def test_a_run_of_one_subscription_is_billed_in_its_call(
    client: BillingClient, invoicing: ReferenceInvoicingServer
) -> None:
    [subscription] = await subscribe(client, 1)
    with recording() as spans:
        await client.run_for_subscription(subscription)
    use_case = spans.one("BillingRunService.run_billing_for_subscription")
    assert spans.one(CREATE_INVOICE) in spans.children(use_case)
    assert use_case in spans.children(spans.one(f"{RPC}/RunBillingForSubscription"))


async def test_a_transaction_tells_of_its_statements(client: BillingClient) -> None:
    plan = await client.create_plan()
    with recording() as spans:
        await client.subscribe(plan, started_at=STARTED)
    transaction = spans.one("transaction")
    names = [event.name for event in transaction.events]
    assert names[0] == "BEGIN"
    assert names[-1] == "COMMIT"
    assert any(name.startswith("INSERT INTO billing_periods (") for name in names)  # asyncpg
    assert any(name.startswith("INSERT INTO subscriptions (") for name in names)  # SQLAlchemy
    attributes = transaction.attributes
    assert attributes is not None
    assert attributes["db.system.name"] == "postgresql"
    assert attributes["billing.transaction.committed"] is True
    assert attributes["billing.transaction.statements"] == len(names) - 1
    assert 0 < float(str(attributes["billing.transaction.statement_seconds"])) < 60
    assert client.tenant_id not in "".join(names)  # values stay out of traces


async def test_a_refusal_is_no_error_of_the_trace(client: BillingClient) -> None:
    with recording() as spans, pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.get_run("run_01h455vb4pex5vsknk084sn02q")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    use_case = spans.one("BillingRunService.get_billing_run_with_results")
    transaction = spans.one("transaction")
    for span in (use_case, transaction):
        assert span.status.status_code is trace.StatusCode.UNSET
        assert span.attributes is not None
        assert span.attributes["error.type"] == "ResourceNotFound"
    assert transaction.attributes is not None
    assert transaction.attributes["billing.transaction.committed"] is False


async def test_times_name_the_trace_that_they_were_measured_in(
    client: BillingClient, service: RunningService, invoicing: ReferenceInvoicingServer
) -> None:
    await subscribe(client, 1)
    with recording() as spans:
        await run_billing(client)
        await whole_batches(spans)
    expected = trace_id(spans.one(BATCH))
    found = {
        sample.name.removesuffix("_bucket")
        for metric in service.metrics.registry.collect()
        for sample in metric.samples
        if sample.exemplar and sample.exemplar.labels["trace_id"] == expected
    }
    assert found == {
        "billing_rpc_duration_seconds",
        "billing_run_duration_seconds",
        "billing_job_duration_seconds",
        "billing_invoice_attempt_duration_seconds",
    }
