-- A slice of the subscriptions whose current billing period ended by $3.
SELECT id, current_period_id
FROM subscriptions
WHERE tenant_id = $1 AND livemode = $2 AND status = 'active' AND current_period_end <= $3
  AND ($4::uuid IS NULL OR id > $4)
ORDER BY id
LIMIT $5
