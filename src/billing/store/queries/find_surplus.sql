-- The credit of type surplus that one execution made of what a billing period overpaid.
SELECT k.id AS usage_credit_id, e.id, e.ledger_transaction_id, e.amount, e.posted_at
FROM usage_credits k
CROSS JOIN LATERAL (
    SELECT * FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.source_usage_credit_id = k.id
      AND own.entry_type = 'surplus_credited'
    LIMIT 1
) AS e
WHERE k.tenant_id = $1 AND k.livemode = $2 AND k.subscription_id = $3
  AND k.credit_type = 'surplus' AND e.billing_period_id = $4
  AND (e.calculation_run_id = $5 OR e.ledger_transaction_id = $6)
