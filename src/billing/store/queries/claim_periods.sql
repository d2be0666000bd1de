-- Takes periods for a run. One pending result a period, one result a period and run: where another
-- run has it, or this one has its result already, nothing happens.
INSERT INTO billing_run_results (
    tenant_id, livemode, billing_run_id, batch, status, id, subscription_id, billing_period_id
)
SELECT $1, $2, $3, $4, 'pending', u.*
FROM unnest($5::uuid[], $6::uuid[], $7::uuid[]) AS u
ON CONFLICT DO NOTHING
RETURNING billing_period_id
