-- Writes the snapshots of what components cost in a period.
INSERT INTO calculations (
    tenant_id, livemode, calculated_at, calculation_type, status, billing_run_id, recalculation_id,
    notes, id, calculation_run_id, subscription_id, billing_period_id, component_id,
    usage_meter_id, total_quantity, billable_quantity, unit_price, total_raw_usage_amount,
    credits_applied_amount, net_billed_amount, currency
)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, u.*
FROM unnest(
    $9::uuid[], $10::uuid[], $11::uuid[], $12::uuid[], $13::uuid[], $14::uuid[], $15::numeric[],
    $16::numeric[], $17::numeric[], $18::bigint[], $19::bigint[], $20::bigint[], $21::text[]
) AS u
