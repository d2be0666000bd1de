-- The calculations of a component in a billed period, in the order they were made: those that count
-- or counted, and the estimate that each of them replaced.
SELECT c.*
FROM calculations c
WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.subscription_id = $3
  AND c.billing_period_id = $4 AND c.component_id = $5
  AND (c.calculation_type <> 'interim_estimate' OR c.superseded_by_calculation_id IN (
      SELECT own.id FROM calculations own
      WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = $3
        AND own.billing_period_id = $4 AND own.component_id = $5
        AND own.calculation_type <> 'interim_estimate'
  ))
ORDER BY c.id
