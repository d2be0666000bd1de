-- What adjustments of a subscription's credits could not take back, so that a billing period owes
-- it: in the order it was posted.
SELECT a.id, a.usage_credit_id, a.source_refund_id, a.amount_adjusted, a.reason,
       e.id AS ledger_entry_id, e.ledger_transaction_id, e.amount, e.posted_at
FROM usage_credits k
JOIN usage_credit_balance_adjustments a
  ON a.tenant_id = $1 AND a.livemode = $2 AND a.usage_credit_id = k.id
CROSS JOIN LATERAL (
    SELECT own.id, own.ledger_transaction_id, own.amount, own.posted_at FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = $3
      AND own.ledger_transaction_id = a.ledger_transaction_id
      AND own.source_credit_balance_adjustment_id = a.id
      AND own.entry_type = 'credit_deficit_charged' AND own.status = 'posted'
      AND own.billing_period_id = $4
    OFFSET 0
) AS e
WHERE k.tenant_id = $1 AND k.livemode = $2 AND k.subscription_id = $3
ORDER BY e.posted_at, e.id
