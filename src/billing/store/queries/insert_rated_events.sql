-- Stores usage events and posts their usage_cost entries, in one statement: what the events of one
-- aggregate have in common is sent once. An entry has the id of its event; held ones are pending.
WITH meters AS (
    SELECT *
    FROM unnest(
        $4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[], $8::uuid[], $9::text[], $10::uuid[],
        $11::uuid[], $12::text[], $13::boolean[]
    ) WITH ORDINALITY AS m (
        id, subscription_id, ledger_transaction_id, billing_period_id, usage_meter_id, currency,
        receivable_account_id, revenue_account_id, name, is_held, number
    )
), incoming AS (
    SELECT *
    FROM unnest(
        $14::integer[], $15::uuid[], $16::text[], $17::bytea[], $18::numeric[],
        $19::timestamptz[], $20::text[], $21::text[], $22::bigint[]
    ) AS e (
        meter_number, id, idempotency_key, payload_hash, quantity, event_timestamp, properties,
        disposition, cost
    )
), stored AS (
    INSERT INTO usage_events (
        tenant_id, livemode, received_at, id, idempotency_key, payload_hash, subscription_id,
        subscription_usage_meter_id, quantity, event_timestamp, properties, disposition
    )
    SELECT $1, $2, $3, e.id, e.idempotency_key, e.payload_hash, m.subscription_id, m.id,
           e.quantity, e.event_timestamp, e.properties::jsonb, e.disposition
    FROM incoming e
    JOIN meters m ON m.number = e.meter_number
)
INSERT INTO ledger_entries (
    tenant_id, livemode, status, entry_timestamp, posted_at, entry_type, subscription_id,
    ledger_transaction_id, id, amount, currency, debit_account_id, credit_account_id,
    source_usage_event_id, billing_period_id, usage_meter_id, description
)
SELECT $1, $2, CASE WHEN m.is_held THEN 'pending' ELSE 'posted' END, $3,
       CASE WHEN NOT m.is_held THEN $3::timestamptz END, 'usage_cost', m.subscription_id,
       m.ledger_transaction_id, e.id, -e.cost, m.currency, m.receivable_account_id, m.revenue_account_id, e.id,
       m.billing_period_id, m.usage_meter_id,
       m.name || to_char(e.event_timestamp AT TIME ZONE 'UTC', '" on "YYYY-MM-DD')
FROM incoming e
JOIN meters m ON m.number = e.meter_number
