-- Notes which run has the periods that this one could not take. A period whose other run has come
-- to its outcome in between needs no note.
INSERT INTO billing_run_results (
    tenant_id, livemode, billing_run_id, batch, status, completed_at, id, subscription_id,
    billing_period_id, taken_by_run_id
)
SELECT $1, $2, $3, $4, 'skipped', $5, u.id, u.subscription_id, u.billing_period_id,
       other.billing_run_id
FROM unnest($6::uuid[], $7::uuid[], $8::uuid[]) AS u (id, subscription_id, billing_period_id)
JOIN billing_run_results other
  ON other.tenant_id = $1 AND other.livemode = $2
 AND other.billing_period_id = u.billing_period_id AND other.status = 'pending'
