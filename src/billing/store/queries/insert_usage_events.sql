-- Stores usage events.
INSERT INTO usage_events (
    tenant_id, livemode, received_at, id, idempotency_key, payload_hash, subscription_id,
    subscription_usage_meter_id, quantity, event_timestamp, properties, disposition
)
SELECT $1, $2, $3, u.id, u.idempotency_key, u.payload_hash, u.subscription_id,
       u.subscription_usage_meter_id, u.quantity, u.event_timestamp, u.properties::jsonb,
       u.disposition
FROM unnest(
    $4::uuid[], $5::text[], $6::bytea[], $7::uuid[], $8::uuid[], $9::numeric[],
    $10::timestamptz[], $11::text[], $12::text[]
) AS u (
    id, idempotency_key, payload_hash, subscription_id, subscription_usage_meter_id, quantity,
    event_timestamp, properties, disposition
)
