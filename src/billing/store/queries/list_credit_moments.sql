-- The moments within periods at which a credit of the subscription takes effect or expires.
SELECT DISTINCT w.billing_period_id, m.moment
FROM unnest($3::uuid[], $4::uuid[], $5::timestamptz[], $6::timestamptz[])
    AS w (billing_period_id, subscription_id, period_start, period_end)
JOIN usage_credits k
  ON k.tenant_id = $1 AND k.livemode = $2 AND k.subscription_id = w.subscription_id
CROSS JOIN LATERAL (VALUES (k.effective_at), (k.expires_at)) AS m (moment)
WHERE m.moment > w.period_start AND m.moment < w.period_end
