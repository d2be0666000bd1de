-- Notes which run has the periods that this one could not take. A period whose other run has come
-- to its outcome in between needs no note. The owners are read at once: one by one they would cost
-- a scan each on a table without statistics.
WITH owners AS MATERIALIZED (
    SELECT billing_period_id, billing_run_id
    FROM billing_run_results
    WHERE tenant_id = $1 AND livemode = $2 AND status = 'pending'
      AND billing_period_id = ANY ($8::uuid[])
)
INSERT INTO billing_run_results (
    tenant_id, livemode, billing_run_id, batch, status, completed_at, id, subscription_id,
    billing_period_id, taken_by_run_id
)
SELECT $1, $2, $3, $4, 'skipped', $5, u.id, u.subscription_id, u.billing_period_id,
       owners.billing_run_id
FROM unnest($6::uuid[], $7::uuid[], $8::uuid[]) AS u (id, subscription_id, billing_period_id)
JOIN owners USING (billing_period_id)
ON CONFLICT DO NOTHING
