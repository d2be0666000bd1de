-- Of a tenant: a result that is pending belongs to a run that is running.
SELECT r.subscription_id, r.billing_period_id, r.billing_run_id, r.id AS billing_run_result_id,
       'a pending result of a billing run that has ended' AS problem
FROM billing_run_results r
JOIN billing_runs b ON b.tenant_id = $1 AND b.livemode = $2 AND b.id = r.billing_run_id
WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.status = 'pending' AND b.status <> 'running'
