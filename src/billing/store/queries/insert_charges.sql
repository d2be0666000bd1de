-- Writes the records of invoice lines.
INSERT INTO charges (
    tenant_id, livemode, billing_run_id, created_at, id, subscription_id, billing_period_id,
    calculation_run_id, position, charge_type, component_id, description, quantity, unit_price,
    amount, currency
)
SELECT $1, $2, $3, $4, u.*
FROM unnest(
    $5::uuid[], $6::uuid[], $7::uuid[], $8::uuid[], $9::integer[], $10::text[], $11::uuid[],
    $12::text[], $13::numeric[], $14::numeric[], $15::bigint[], $16::text[]
) AS u
