-- Records uses of credits.
INSERT INTO usage_credit_applications (
    tenant_id, livemode, applied_at, id, subscription_id, usage_credit_id, kind,
    calculation_run_id, billing_period_id, component_id, usage_meter_id, amount_applied, currency,
    usage_from, usage_until, ledger_transaction_id
)
SELECT $1, $2, $3, u.*
FROM unnest(
    $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::uuid[], $9::uuid[], $10::uuid[],
    $11::uuid[], $12::bigint[], $13::text[], $14::timestamptz[], $15::timestamptz[], $16::uuid[]
) AS u
