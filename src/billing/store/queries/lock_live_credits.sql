-- Locks the credits of subscriptions of which something can be spent, in the one global order.
SELECT k.*, b.status, b.remaining_amount, b.held_amount, b.voided_at, b.expired_at,
       greatest(k.updated_at, b.updated_at) AS changed_at
FROM usage_credit_balances b
JOIN usage_credits k
  ON k.tenant_id = $1 AND k.livemode = $2 AND k.id = b.usage_credit_id
WHERE b.tenant_id = $1 AND b.livemode = $2 AND b.subscription_id = ANY ($3::uuid[])
  AND b.remaining_amount > 0
  -- As the index of live credits has it.
  AND (b.remaining_amount > 0 OR b.held_amount > 0)
ORDER BY b.usage_credit_id
FOR NO KEY UPDATE OF b
