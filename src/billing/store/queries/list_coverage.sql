-- What applications still pay of billing periods: their amounts less what was reversed since, and
-- without those whose entries were discarded. An application's entry has its id.
SELECT a.id, a.billing_period_id, a.subscription_id, a.usage_credit_id, a.kind, a.component_id,
       a.usage_from, a.usage_until, a.ledger_transaction_id,
       e.status = 'pending' AS is_pending,
       a.amount_applied - coalesce((
           SELECT sum(-r.amount) FROM ledger_entries r
           WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.source_credit_application_id = a.id
             AND r.entry_type = 'credit_application_reversed' AND r.status = 'posted'
       ), 0)::bigint AS amount
FROM usage_credit_applications a
JOIN ledger_entries e
  ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = a.subscription_id
 AND e.ledger_transaction_id = a.ledger_transaction_id AND e.id = a.id
WHERE a.tenant_id = $1 AND a.livemode = $2 AND a.billing_period_id = ANY ($3::uuid[])
  AND e.discarded_at IS NULL
ORDER BY a.id
