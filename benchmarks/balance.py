"""The cost of a balance at a small and at a large ledger, against its bare statement."""

import time
from datetime import UTC, datetime, timedelta

import asyncpg
import uvloop

from benchmarks.surroundings import Surroundings, note, report, surroundings
from billing.domain.identifiers import SUBSCRIPTION, from_typeid
from billing.store.statements import load_query
from tests.factories.client import component, usage_event
from tests.factories.credits import grant_credit

SIZES = (1_000, 1_000_000)
READS = 2_000
CREDIT = 5_000

# Copies of what the service wrote, by a session that checks no keys: the same rows as calls of a
# thousand events each leave, in a fraction of the time. Ids and keys are new, times stay.
COPY_USAGE = """
WITH original AS (
    SELECT * FROM usage_events WHERE tenant_id = $1 ORDER BY id LIMIT 1
), entry AS (
    SELECT e.* FROM ledger_entries e JOIN original o
      ON e.tenant_id = o.tenant_id AND e.livemode = o.livemode AND e.source_usage_event_id = o.id
), call AS MATERIALIZED (
    SELECT n AS number, uuidv7() AS id FROM generate_series(0, ($2::integer - 1) / 1000) AS n
), copy AS MATERIALIZED (
    SELECT uuidv7() AS id, call.id AS ledger_transaction_id, n AS number
    FROM generate_series(0, $2::integer - 1) AS n
    JOIN call ON call.number = n / 1000
), calls AS (
    INSERT INTO ledger_transactions (
        tenant_id, livemode, id, subscription_id, initiating_source_type, initiating_source_id,
        description, created_at
    )
    SELECT t.tenant_id, t.livemode, call.id, t.subscription_id, t.initiating_source_type,
           call.id, t.description, t.created_at
    FROM call, entry
    JOIN ledger_transactions t
      ON t.tenant_id = entry.tenant_id AND t.livemode = entry.livemode
     AND t.id = entry.ledger_transaction_id
), events AS (
    INSERT INTO usage_events (
        tenant_id, livemode, id, idempotency_key, payload_hash, subscription_id,
        subscription_usage_meter_id, quantity, event_timestamp, disposition, received_at
    )
    SELECT o.tenant_id, o.livemode, c.id, 'copy-' || c.number, o.payload_hash, o.subscription_id,
           o.subscription_usage_meter_id, o.quantity, o.event_timestamp, o.disposition,
           o.received_at
    FROM original o, copy c
), aggregate AS (
    UPDATE subscription_usage_meters m
    SET event_count = m.event_count + $2, quantity = m.quantity + $2 * o.quantity,
        rated_amount = m.rated_amount - $2 * entry.amount
    FROM original o, entry
    WHERE m.tenant_id = o.tenant_id AND m.livemode = o.livemode
      AND m.id = o.subscription_usage_meter_id
)
INSERT INTO ledger_entries (
    tenant_id, livemode, subscription_id, ledger_transaction_id, id, entry_type, status, amount,
    currency, debit_account_id, credit_account_id, source_usage_event_id, billing_period_id,
    usage_meter_id, description, entry_timestamp, posted_at
)
SELECT e.tenant_id, e.livemode, e.subscription_id, c.ledger_transaction_id, c.id, e.entry_type,
       e.status, e.amount, e.currency, e.debit_account_id, e.credit_account_id, c.id,
       e.billing_period_id, e.usage_meter_id, e.description, e.entry_timestamp, e.posted_at
FROM entry e, copy c
"""


async def main() -> None:
    """Measure after the first size and after the last: the ratio of the two is what matters."""
    async with surroundings() as around:
        client = around.client
        meter = await client.create_meter()
        plan = await client.create_plan(components=[component(meter, unit_price="1")])
        start = datetime.now(UTC) - timedelta(days=5)
        subscription = await client.subscribe(plan, started_at=start)
        await grant_credit(client, subscription.id, CREDIT)
        # The grant made the first entry.
        events = [usage_event(subscription.id, meter, "1", start) for _ in range(SIZES[0] - 1)]
        await client.ingest(events)
        written = SIZES[0]
        latencies = []
        for size in SIZES:
            if size > written:
                await _copy(around, size - written)
                written = size
            await _require_balance(around, subscription.id, size)
            ours = await _read_balances(around, subscription.id)
            floor = await _floor(around, subscription.id)
            report(f"balance_at_{size}", ours=ours, floor=floor, unit="us")
            latencies.append(ours)
        report("balance_growth", ours=latencies[-1], floor=latencies[0], unit="us")


async def _copy(around: Surroundings, count: int) -> None:
    """Give the subscription so many entries more."""
    began = time.perf_counter()
    connection = await asyncpg.connect(around.database_url)
    await connection.execute("SET session_replication_role = replica")
    await connection.execute(COPY_USAGE, around.client.tenant_id, count)
    await connection.close()
    seconds = time.perf_counter() - began
    note(f"balance: {count:,} entries more, made in {seconds:.0f} s")


async def _require_balance(around: Surroundings, subscription_id: str, size: int) -> None:
    """Make sure that the ledger has the entries, and that the balance is theirs."""
    connection = await asyncpg.connect(around.database_url)
    await connection.execute("VACUUM ANALYZE")  # as autovacuum would have, by then
    tenant_id = around.client.tenant_id
    statement = "SELECT count(*), sum(amount) FROM ledger_entries WHERE tenant_id = $1"
    record = await connection.fetchrow(statement, tenant_id)
    await connection.close()
    assert record is not None
    balance = await around.client.balance(subscription_id)
    assert tuple(record) == (size, balance.net_amount)
    assert balance.outstanding_amount == size - 1


async def _read_balances(around: Surroundings, subscription_id: str) -> float:
    """Return microseconds a call, one at a time."""
    began = time.perf_counter()
    for _ in range(READS):
        await around.client.balance(subscription_id)
    return 1e6 * (time.perf_counter() - began) / READS


async def _floor(around: Surroundings, subscription_id: str) -> float:
    """The bare statement on a bare connection."""
    connection = await asyncpg.connect(around.database_url)
    statement = load_query("balance_now")
    key = from_typeid(SUBSCRIPTION, subscription_id)
    now = datetime.now(UTC)
    began = time.perf_counter()
    for _ in range(READS):
        await connection.fetchrow(statement, around.client.tenant_id, True, key, now)
    seconds = time.perf_counter() - began
    await connection.close()
    return 1e6 * seconds / READS


if __name__ == "__main__":
    uvloop.run(main())
