-- An estimate that stands says of each component what credits paid so far and what it holds of them.
WITH standing AS MATERIALIZED (
    SELECT *
    FROM calculations
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND status = 'pending_confirmation'
), paid AS (
    SELECT s.id, e.amount
    FROM standing s
    JOIN ledger_entries e
      ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = s.subscription_id
     AND e.billing_period_id = s.billing_period_id AND e.usage_meter_id = s.usage_meter_id
     AND e.source_credit_application_id IS NOT NULL AND e.discarded_at IS NULL
    JOIN usage_credit_applications a
      ON a.tenant_id = $1 AND a.livemode = $2 AND a.id = e.source_credit_application_id
     AND a.kind <> 'settlement'
    WHERE e.status = 'posted' OR e.calculation_run_id = s.calculation_run_id
)
SELECT s.subscription_id, s.billing_period_id, s.id AS calculation_id, s.component_id, s.currency,
       coalesce(sums.amount, 0) AS expected_amount, s.credits_applied_amount AS actual_amount,
       'the estimate says another sum of credits than it and the ledger hold' AS problem
FROM standing s
LEFT JOIN (SELECT id, sum(amount) AS amount FROM paid GROUP BY id) AS sums ON sums.id = s.id
WHERE coalesce(sums.amount, 0) <> s.credits_applied_amount
UNION ALL
SELECT subscription_id, billing_period_id, (array_agg(id ORDER BY id))[2], component_id,
       max(currency), NULL, NULL, format('the component has %s standing estimates', count(*))
FROM standing
GROUP BY subscription_id, billing_period_id, component_id
HAVING count(*) > 1
