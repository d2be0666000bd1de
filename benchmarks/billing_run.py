"""Subscriptions billed a second, invoices included, against a bare script that writes the same.

``BENCH_SUBSCRIPTIONS`` (default 5,000) sets how many; memory must not depend on it.
"""

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import grpc.aio
import uvloop
from pydantic import TypeAdapter

from benchmarks.copied_rows import FLOOR_TENANT, Connection, CopiedRows, copy_parents
from benchmarks.surroundings import Surroundings, note, report, surroundings
from billing.clients.invoicing_messages import create_invoice_request
from billing.domain.invoices import InvoiceRequest
from billing.v1 import billing_run_pb2
from invoicing.v1 import invoicing_pb2, invoicing_pb2_grpc
from tests.factories.client import component, usage_event

SUBSCRIPTIONS = int(os.environ.get("BENCH_SUBSCRIPTIONS", "5000"))
BATCH = 500
INVOICE_CALLS = 32
METERS = 3
PARENTS = ("usage_meters", "plans", "plan_versions", "components", "ledger_accounts")

CLONE_SUBSCRIPTIONS = """
WITH source AS (SELECT * FROM subscriptions LIMIT 1),
clones AS (
    SELECT gen_random_uuid() AS id, gen_random_uuid() AS account, gen_random_uuid() AS period,
           number
    FROM generate_series(1, $1::integer) AS number
), accounts AS (
    INSERT INTO ledger_accounts (
        tenant_id, livemode, id, kind, currency, subscription_id, created_at
    )
    SELECT s.tenant_id, s.livemode, c.account, 'receivable', s.currency, c.id, s.created_at
    FROM source s, clones c
), copies AS (
    INSERT INTO subscriptions (
        tenant_id, livemode, id, customer_id, plan_id, currency, status, started_at,
        receivable_account_id, current_period_id, current_period_start, current_period_end,
        plan_version_id, created_at, updated_at
    )
    SELECT s.tenant_id, s.livemode, c.id, 'clone-' || c.number, s.plan_id, s.currency, s.status,
           s.started_at, c.account, c.period, s.current_period_start, s.current_period_end,
           s.plan_version_id, s.created_at, s.updated_at
    FROM source s, clones c
), periods AS (
    INSERT INTO billing_periods (
        tenant_id, livemode, id, subscription_id, plan_version_id, anchor_at, period_start,
        period_end, status
    )
    SELECT s.tenant_id, s.livemode, c.period, c.id, s.plan_version_id, s.started_at,
           s.current_period_start, s.current_period_end, 'open'
    FROM source s, clones c
)
INSERT INTO subscription_usage_meters (
    tenant_id, livemode, id, subscription_id, billing_period_id, component_id, usage_meter_id,
    quantity, rated_amount, event_count, updated_at
)
SELECT m.tenant_id, m.livemode, gen_random_uuid(), c.id, c.period, m.component_id,
       m.usage_meter_id, m.quantity, m.rated_amount, m.event_count, m.updated_at
FROM subscription_usage_meters m, clones c
"""


async def main() -> None:
    """Measure ours, then write and invoice the same with a bare script: the floor."""
    async with surroundings() as around:
        await _prepare(around)
        cpu_seconds = around.cpu_seconds()
        began = time.perf_counter()
        run = await around.client.billing_runs.RunBilling(
            billing_run_pb2.RunBillingRequest(
                tenant_id=around.client.tenant_id,
                run_type=billing_run_pb2.BILLING_RUN_TYPE_SCHEDULED,
                request_id="bench",
            )
        )
        ours = SUBSCRIPTIONS / (time.perf_counter() - began)
        cpu_seconds = around.cpu_seconds() - cpu_seconds
        assert run.billing_run.succeeded_count == SUBSCRIPTIONS, run
        floor = await _floor(around)
        report("billing_run", ours=ours, floor=floor, unit="subscriptions/s")
        note(
            f"billing_run: {SUBSCRIPTIONS:,} subscriptions, "
            f"{1e6 * cpu_seconds / SUBSCRIPTIONS:.0f} us of the service's CPU each, "
            f"peak memory {around.peak_memory_mib():.0f} MiB"
        )


async def _prepare(around: Surroundings) -> None:
    """One subscription with usage of three meters through the API, and clones of it."""
    client = around.client
    meters = [await client.create_meter(f"meter_{number}") for number in range(METERS)]
    plan = await client.create_plan(
        components=[component(m, name=f"Meter {i}") for i, m in enumerate(meters)]
    )
    start = datetime.now(UTC) - timedelta(days=32)
    subscription = await client.subscribe(plan, started_at=start)
    await client.ingest([usage_event(subscription.id, meter, "1000", start) for meter in meters])
    connection = await asyncpg.connect(around.database_url)
    await connection.execute(CLONE_SUBSCRIPTIONS, SUBSCRIPTIONS - 1)
    await connection.execute("ANALYZE")
    await connection.close()


async def _floor(around: Surroundings) -> float:
    """Write what the run wrote, a batch a transaction, and ask for the same invoices."""
    reader = await asyncpg.connect(around.database_url)
    await copy_parents(reader, PARENTS)
    before = [
        await CopiedRows.read(reader, "subscriptions"),
        await CopiedRows.read(reader, "billing_periods", order="subscription_id"),
        await CopiedRows.read(reader, "billing_runs"),
    ]
    for rows in before:
        await rows.write(reader, 0, rows.count)
    by_subscription = {
        table: await CopiedRows.read(reader, table, order="subscription_id, " + order, where=where)
        for table, order, where in (
            ("charges", "position", "true"),
            ("calculations", "id", "true"),
            ("ledger_transactions", "id", "initiating_source_type = 'billing_run'"),
            ("ledger_entries", "id", "entry_type = 'charge_billed'"),
            ("invoice_requests", "billing_period_id", "true"),
            ("billing_run_results", "id", "true"),
        )
    }
    ids = [
        [record["id"] for record in await reader.fetch(statement, FLOOR_TENANT)]
        for statement in (
            "SELECT id FROM subscriptions WHERE tenant_id = $1 ORDER BY id",
            "SELECT id FROM billing_periods WHERE tenant_id = $1 AND status <> 'open'"
            " ORDER BY subscription_id",
        )
    ]
    requests = await _invoice_requests(reader)
    async with grpc.aio.insecure_channel(around.invoicing_address) as channel:
        stub = invoicing_pb2_grpc.InvoicingServiceStub(channel)
        began = time.perf_counter()
        for start in range(0, SUBSCRIPTIONS, BATCH):
            await _write_batch(reader, by_subscription, start)
            await _invoice_batch(stub, requests[start : start + BATCH])
            async with reader.transaction():
                await reader.execute(
                    "UPDATE subscriptions SET updated_at = updated_at"
                    " WHERE tenant_id = $1 AND livemode AND id = ANY ($2::uuid[])",
                    FLOOR_TENANT,
                    ids[0][start : start + BATCH],
                )
                await reader.execute(
                    "UPDATE billing_periods SET invoiced_at = invoiced_at"
                    " WHERE tenant_id = $1 AND livemode AND id = ANY ($2::uuid[])",
                    FLOOR_TENANT,
                    ids[1][start : start + BATCH],
                )
        seconds = time.perf_counter() - began
    await reader.close()
    return SUBSCRIPTIONS / seconds


async def _write_batch(connection: Connection, tables: dict[str, CopiedRows], start: int) -> None:
    async with connection.transaction():
        for rows in tables.values():
            each = rows.count // SUBSCRIPTIONS
            await rows.write(connection, start * each, (start + BATCH) * each)


async def _invoice_requests(connection: Connection) -> list[invoicing_pb2.CreateInvoiceRequest]:
    """The requests that the service sent, under keys of their own."""
    adapter = TypeAdapter(InvoiceRequest)
    records = await connection.fetch("SELECT request::text AS request FROM invoice_requests")
    messages = []
    for record in records:
        message = create_invoice_request(adapter.validate_json(record["request"]))
        message.idempotency_key = f"floor-{message.idempotency_key}"
        messages.append(message)
    return messages


async def _invoice_batch(
    stub: invoicing_pb2_grpc.InvoicingServiceStub,
    requests: list[invoicing_pb2.CreateInvoiceRequest],
) -> None:
    slots = asyncio.Semaphore(INVOICE_CALLS)

    async def create(request: invoicing_pb2.CreateInvoiceRequest) -> None:
        async with slots:
            await stub.CreateInvoice(request)

    async with asyncio.TaskGroup() as group:
        for request in requests:
            group.create_task(create(request))


if __name__ == "__main__":
    uvloop.run(main())
