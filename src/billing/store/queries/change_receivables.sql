-- Moves the running receivables of billing periods.
UPDATE billing_periods p
SET receivable_amount = p.receivable_amount + u.change
FROM unnest($3::uuid[], $4::bigint[]) AS u (id, change)
WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.id = u.id
RETURNING p.subscription_id, p.status, u.change
