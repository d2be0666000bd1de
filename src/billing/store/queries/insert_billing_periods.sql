-- Opens billing periods.
INSERT INTO billing_periods (
    tenant_id, livemode, id, subscription_id, plan_version_id, anchor_at, period_start,
    period_end, status
)
SELECT $1, $2, u.*, 'open'
FROM unnest(
    $3::uuid[], $4::uuid[], $5::uuid[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[]
) AS u
