-- The last moment within periods, by now, at which a credit of the subscription expired: of all its
-- credits, used up ones too, as with the moments that divide periods.
SELECT w.billing_period_id, max(k.expires_at) AS moment
FROM unnest($3::uuid[], $4::uuid[], $5::timestamptz[], $6::timestamptz[])
    AS w (billing_period_id, subscription_id, period_start, period_end)
CROSS JOIN LATERAL (
    SELECT own.expires_at FROM usage_credits own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = w.subscription_id
    OFFSET 0
) AS k
WHERE k.expires_at > w.period_start AND k.expires_at < w.period_end AND k.expires_at <= $7
GROUP BY w.billing_period_id
