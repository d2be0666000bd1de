-- The moments within periods at which a credit of the subscription takes effect or expires. Looked
-- up one by one, whatever the planner knows of the table: it must not read a tenant's credits.
SELECT DISTINCT w.billing_period_id, m.moment
FROM unnest($3::uuid[], $4::uuid[], $5::timestamptz[], $6::timestamptz[])
    AS w (billing_period_id, subscription_id, period_start, period_end)
CROSS JOIN LATERAL (
    SELECT own.effective_at, own.expires_at FROM usage_credits own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = w.subscription_id
    OFFSET 0
) AS k
CROSS JOIN LATERAL (VALUES (k.effective_at), (k.expires_at)) AS m (moment)
WHERE m.moment > w.period_start AND m.moment < w.period_end
