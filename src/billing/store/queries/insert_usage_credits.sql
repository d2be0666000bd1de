-- Writes credits with their values.
WITH granted AS (
    SELECT *
    FROM unnest(
        $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::uuid[], $8::uuid[], $9::uuid[],
        $10::bigint[], $11::text[], $12::integer[], $13::boolean[], $14::timestamptz[],
        $15::timestamptz[], $16::timestamptz[], $17::text[], $18::text[], $19::text[], $20::text[],
        $21::bigint[]
    ) AS u (
        id, subscription_id, credit_type, source_reference_id, billing_period_id, usage_meter_id,
        component_id, issued_amount, currency, priority, covers_charges, effective_at, expires_at,
        issued_at, initial_status, notes, metadata, status, remaining_amount
    )
), stored AS (
    INSERT INTO usage_credits (
        tenant_id, livemode, id, subscription_id, credit_type, source_reference_id,
        billing_period_id, usage_meter_id, component_id, issued_amount, currency, priority,
        covers_charges, effective_at, expires_at, issued_at, initial_status, notes, metadata,
        updated_at
    )
    SELECT $1, $2, id, subscription_id, credit_type, source_reference_id, billing_period_id,
           usage_meter_id, component_id, issued_amount, currency, priority, covers_charges,
           effective_at, expires_at, issued_at, initial_status, notes, metadata::jsonb, issued_at
    FROM granted
)
INSERT INTO usage_credit_balances (
    tenant_id, livemode, usage_credit_id, subscription_id, status, remaining_amount, held_amount,
    expires_at, updated_at
)
SELECT $1, $2, id, subscription_id, status, remaining_amount, 0, expires_at, issued_at
FROM granted
