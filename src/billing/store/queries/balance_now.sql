-- What a subscription owes now: the snapshot at its last closed period, plus the aggregates of
-- its open periods.
WITH open_usage AS (
    SELECT coalesce(sum(m.rated_amount), 0) AS amount
    FROM billing_periods p
    JOIN subscription_usage_meters m
      ON m.tenant_id = $1 AND m.livemode = $2 AND m.billing_period_id = p.id
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = $3 AND p.status = 'open'
), not_invoiced AS (
    SELECT coalesce(sum(total_amount), 0) AS amount
    FROM billing_periods
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = $3 AND status = 'billed'
), closed AS (
    SELECT coalesce((
        SELECT closing_receivable_amount
        FROM billing_periods
        WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = $3 AND status <> 'open'
        ORDER BY period_start DESC
        LIMIT 1
    ), 0) AS amount
)
SELECT open_usage.amount::bigint AS unbilled,
       not_invoiced.amount::bigint AS billed_not_invoiced,
       (closed.amount - not_invoiced.amount)::bigint AS invoiced
FROM open_usage, not_invoiced, closed
