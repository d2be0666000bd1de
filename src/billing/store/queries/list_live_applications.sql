-- What is applied to a billing period, application by application, less what was reversed since,
-- without those whose entries were discarded or are pending. An application's entry has its id.
-- Reversals that are pending will take back more.
SELECT a.id, a.usage_credit_id, a.billing_period_id, a.kind, a.component_id, a.usage_meter_id,
       a.usage_from, a.usage_until,
       (a.amount_applied - r.posted)::bigint AS live_amount,
       (a.amount_applied - r.posted - r.pending)::bigint AS reversible_amount
FROM usage_credit_applications a
CROSS JOIN LATERAL (
    SELECT status FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = a.subscription_id
      AND own.ledger_transaction_id = a.ledger_transaction_id AND own.id = a.id
      AND own.status = 'posted'
    LIMIT 1
) AS e
CROSS JOIN LATERAL (
    SELECT coalesce(sum(-own.amount) FILTER (WHERE own.status = 'posted'), 0) AS posted,
           coalesce(sum(-own.amount) FILTER (WHERE own.status = 'pending'), 0) AS pending
    FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.source_credit_application_id = a.id
      AND own.entry_type = 'credit_application_reversed' AND own.discarded_at IS NULL
) AS r
WHERE a.tenant_id = $1 AND a.livemode = $2 AND a.billing_period_id = $3
  AND a.amount_applied > r.posted
ORDER BY a.id
