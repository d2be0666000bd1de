-- Posts ledger entries.
INSERT INTO ledger_entries (
    tenant_id, livemode, status, entry_timestamp, posted_at, subscription_id,
    ledger_transaction_id, id, entry_type, amount, currency, debit_account_id, credit_account_id,
    source_usage_event_id, source_charge_id, billing_period_id, usage_meter_id,
    calculation_run_id, description
)
SELECT $1, $2, 'posted', $3, $3, u.*
FROM unnest(
    $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::bigint[], $9::text[], $10::uuid[],
    $11::uuid[], $12::uuid[], $13::uuid[], $14::uuid[], $15::uuid[], $16::uuid[], $17::text[]
) AS u
