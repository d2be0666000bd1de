-- A slice of the billed periods that have no invoice.
SELECT subscription_id, id
FROM billing_periods
WHERE tenant_id = $1 AND livemode = $2 AND status = 'billed'
  AND ($3::uuid IS NULL OR id > $3)
ORDER BY id
LIMIT $4
