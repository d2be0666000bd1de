-- What payments had paid of a billing period before a charge was made, less what was taken back by
-- then. The charge's id tells the order where the clock did not move.
SELECT coalesce(sum(a.amount_applied - r.amount), 0)::bigint
FROM usage_credit_applications a
CROSS JOIN LATERAL (
    SELECT own.posted_at FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = a.subscription_id
      AND own.ledger_transaction_id = a.ledger_transaction_id AND own.id = a.id
      AND (own.posted_at < $4 OR (own.posted_at = $4 AND own.id < $5))
    LIMIT 1
) AS e
CROSS JOIN LATERAL (
    SELECT coalesce(sum(-own.amount), 0) AS amount FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.source_credit_application_id = a.id
      AND own.entry_type = 'credit_application_reversed'
      AND (own.posted_at < $4 OR (own.posted_at = $4 AND own.id < $5))
) AS r
WHERE a.tenant_id = $1 AND a.livemode = $2 AND a.billing_period_id = $3 AND a.kind = 'settlement'
