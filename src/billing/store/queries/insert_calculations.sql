-- Writes the snapshots of what components cost in a period.
INSERT INTO calculations (
    tenant_id, livemode, billing_run_id, calculated_at, calculation_type, status, id,
    calculation_run_id, subscription_id, billing_period_id, component_id, usage_meter_id,
    total_quantity, billable_quantity, unit_price, total_raw_usage_amount, credits_applied_amount,
    net_billed_amount, currency
)
SELECT $1, $2, $3, $4, 'billing_run', 'active', u.*
FROM unnest(
    $5::uuid[], $6::uuid[], $7::uuid[], $8::uuid[], $9::uuid[], $10::uuid[], $11::numeric[],
    $12::numeric[], $13::numeric[], $14::bigint[], $15::bigint[], $16::bigint[], $17::text[]
) AS u
