-- Writes running aggregates; the subscription's lock makes this transaction their only writer.
INSERT INTO subscription_usage_meters AS m (
    tenant_id, livemode, updated_at, id, subscription_id, billing_period_id, component_id,
    usage_meter_id, quantity, rated_amount, event_count, pending_quantity, pending_amount,
    pending_event_count
)
SELECT $1, $2, $3, u.*
FROM unnest(
    $4::uuid[], $5::uuid[], $6::uuid[], $7::uuid[], $8::uuid[], $9::numeric[], $10::bigint[],
    $11::bigint[], $12::numeric[], $13::bigint[], $14::bigint[]
) AS u
ON CONFLICT (tenant_id, livemode, id) DO UPDATE
SET quantity = excluded.quantity,
    rated_amount = excluded.rated_amount,
    event_count = excluded.event_count,
    pending_quantity = excluded.pending_quantity,
    pending_amount = excluded.pending_amount,
    pending_event_count = excluded.pending_event_count,
    updated_at = excluded.updated_at
