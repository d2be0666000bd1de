-- The status of a credit goes with what is left of it; one that has ended holds nothing.
SELECT b.subscription_id, b.usage_credit_id, k.currency,
       CASE WHEN fitting.status IN ('voided', 'expired') THEN 0 END AS expected_amount,
       b.remaining_amount + b.held_amount AS actual_amount,
       CASE WHEN b.status <> fitting.status
                THEN format('the credit is %s, and should be %s', b.status, fitting.status)
            WHEN b.expires_at IS DISTINCT FROM k.expires_at
                THEN 'the balance of the credit has another expiry than the credit'
            ELSE format('the credit is %s, and something is left of it', b.status)
       END AS problem
FROM usage_credit_balances b
JOIN usage_credits k ON k.tenant_id = $1 AND k.livemode = $2 AND k.id = b.usage_credit_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN b.voided_at IS NOT NULL THEN 'voided'
                WHEN b.expired_at IS NOT NULL THEN 'expired'
                WHEN b.remaining_amount + b.held_amount = 0 THEN 'fully_used'
                WHEN b.remaining_amount + b.held_amount < k.issued_amount THEN 'partially_used'
                ELSE 'available'
           END AS status
) AS fitting
WHERE b.tenant_id = $1 AND b.livemode = $2 AND b.subscription_id = ANY ($3::uuid[])
  AND (b.status <> fitting.status
       OR b.expires_at IS DISTINCT FROM k.expires_at
       OR (b.status IN ('voided', 'expired') AND b.remaining_amount + b.held_amount <> 0))
