-- Keeps the snapshot of the last closed period true when a closed period's receivable moves. The
-- period is looked up in a join of its own: compared with a sub-select, all periods were read.
UPDATE billing_periods p
SET closing_receivable_amount = p.closing_receivable_amount + u.change
FROM unnest($3::uuid[], $4::bigint[]) AS u (subscription_id, change)
CROSS JOIN LATERAL (
    SELECT last.id FROM billing_periods last
    WHERE last.tenant_id = $1 AND last.livemode = $2
      AND last.subscription_id = u.subscription_id AND last.status <> 'open'
    ORDER BY last.period_start DESC
    LIMIT 1
) AS closed
WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.id = closed.id
