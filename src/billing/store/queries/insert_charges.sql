-- Writes the records of invoice lines.
INSERT INTO charges (
    tenant_id, livemode, billing_run_id, recalculation_id, created_at, id, subscription_id,
    billing_period_id, calculation_run_id, position, charge_type, component_id, description,
    quantity, unit_price, amount, currency
)
SELECT $1, $2, $3, $4, $5, u.*
FROM unnest(
    $6::uuid[], $7::uuid[], $8::uuid[], $9::uuid[], $10::integer[], $11::text[], $12::uuid[],
    $13::text[], $14::numeric[], $15::numeric[], $16::bigint[], $17::text[]
) AS u
