-- Replaces the estimates of subscriptions by the calculations that an execution has just made of the
-- same component and period, and discards those that have no successor.
UPDATE calculations c
SET status = CASE WHEN u.successor_id IS NULL THEN 'discarded' ELSE 'superseded' END,
    superseded_by_calculation_id = u.successor_id
FROM (
    SELECT estimate.id, (
        SELECT own.id FROM calculations own
        WHERE own.tenant_id = $1 AND own.livemode = $2
          AND own.subscription_id = estimate.subscription_id
          AND own.billing_period_id = estimate.billing_period_id
          AND own.component_id = estimate.component_id
          AND own.calculation_run_id = ANY ($4::uuid[])
    ) AS successor_id
    FROM calculations estimate
    WHERE estimate.tenant_id = $1 AND estimate.livemode = $2
      AND estimate.subscription_id = ANY ($3::uuid[])
      AND estimate.status = 'pending_confirmation'
      AND estimate.calculation_run_id <> ALL ($4::uuid[])
) AS u
WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.id = u.id
