-- Subscriptions with a credit whose time is over and of which something is left. What an estimate
-- holds is left too: few have one, so they are looked up by their estimates.
SELECT overdue.subscription_id
FROM (
    SELECT own.subscription_id FROM usage_credit_balances own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.remaining_amount > 0
      AND own.expires_at <= $3
    UNION
    SELECT c.subscription_id
    FROM calculations c
    CROSS JOIN LATERAL (
        SELECT FROM usage_credit_balances own
        WHERE own.tenant_id = $1 AND own.livemode = $2
          AND own.subscription_id = c.subscription_id AND own.held_amount > 0
          AND own.expires_at <= $3
        LIMIT 1
    ) AS held
    WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.status = 'pending_confirmation'
) AS overdue
WHERE ($4::uuid IS NULL OR overdue.subscription_id = $4)
  AND ($5::uuid IS NULL OR overdue.subscription_id > $5)
ORDER BY overdue.subscription_id
LIMIT $6
