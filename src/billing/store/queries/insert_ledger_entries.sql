-- Adds ledger entries, pending or posted.
INSERT INTO ledger_entries (
    tenant_id, livemode, status, entry_timestamp, posted_at, subscription_id,
    ledger_transaction_id, id, entry_type, amount, currency, debit_account_id, credit_account_id,
    description, source_usage_event_id, source_charge_id, source_usage_credit_id,
    source_credit_application_id, source_credit_balance_adjustment_id, source_payment_id,
    source_refund_id, source_billing_period_calculation_id, source_write_off_id,
    applied_to_ledger_entry_id, billing_period_id, usage_meter_id, calculation_run_id
)
SELECT $1, $2, $4, $3, CASE WHEN $4 = 'posted' THEN $3::timestamptz END, u.*
FROM unnest(
    $5::uuid[], $6::uuid[], $7::uuid[], $8::text[], $9::bigint[], $10::text[], $11::uuid[],
    $12::uuid[], $13::text[], $14::uuid[], $15::uuid[], $16::uuid[], $17::uuid[], $18::uuid[],
    $19::uuid[], $20::uuid[], $21::uuid[], $22::uuid[], $23::uuid[], $24::uuid[],
    $25::uuid[], $26::uuid[]
) AS u
