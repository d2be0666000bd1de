-- The credits of a subscription of which something is left, with what of it can be spent.
SELECT k.credit_type, k.effective_at, k.expires_at, b.remaining_amount, b.held_amount,
       CASE WHEN (k.expires_at IS NULL OR k.expires_at > $4)
             AND (k.billing_period_id IS NULL OR p.status = 'open')
            THEN b.remaining_amount ELSE 0
       END AS available_amount
FROM usage_credit_balances b
JOIN usage_credits k
  ON k.tenant_id = $1 AND k.livemode = $2 AND k.id = b.usage_credit_id
LEFT JOIN billing_periods p
  ON p.tenant_id = $1 AND p.livemode = $2 AND p.id = k.billing_period_id
WHERE b.tenant_id = $1 AND b.livemode = $2 AND b.subscription_id = $3
  AND (b.remaining_amount > 0 OR b.held_amount > 0)
