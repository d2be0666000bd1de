-- Writes the states of locked subscriptions.
UPDATE subscriptions s
SET status = u.status,
    plan_version_id = u.plan_version_id,
    current_period_id = u.current_period_id,
    current_period_start = u.current_period_start,
    current_period_end = u.current_period_end,
    cancel_at = u.cancel_at,
    paused_at = u.paused_at,
    cancelled_at = u.cancelled_at,
    updated_at = u.updated_at
FROM unnest(
    $3::uuid[], $4::text[], $5::uuid[], $6::uuid[], $7::timestamptz[], $8::timestamptz[],
    $9::timestamptz[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[]
) AS u (
    id, status, plan_version_id, current_period_id, current_period_start, current_period_end,
    cancel_at, paused_at, cancelled_at, updated_at
)
WHERE s.tenant_id = $1 AND s.livemode = $2 AND s.id = u.id
