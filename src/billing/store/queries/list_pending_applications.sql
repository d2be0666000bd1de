-- The applications to billing periods that nobody has posted or discarded.
SELECT a.id, a.subscription_id, a.usage_credit_id, a.ledger_transaction_id,
       a.amount_applied AS amount
FROM unnest($3::uuid[]) AS p (id)
JOIN usage_credit_applications a
  ON a.tenant_id = $1 AND a.livemode = $2 AND a.billing_period_id = p.id
JOIN ledger_entries e
  ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = a.subscription_id
 AND e.ledger_transaction_id = a.ledger_transaction_id AND e.id = a.id
WHERE e.status = 'pending' AND e.discarded_at IS NULL
ORDER BY a.id
