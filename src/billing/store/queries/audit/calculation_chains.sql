-- A component has at most one active calculation in a period, and a superseded calculation leads,
-- over others perhaps, to the active one of its period and component.
WITH RECURSIVE calculated AS MATERIALIZED (
    SELECT c.id, c.subscription_id, c.billing_period_id, c.component_id, c.status,
           c.superseded_by_calculation_id, c.currency, c.net_billed_amount
    FROM billing_periods p
    JOIN calculations c
      ON c.tenant_id = $1 AND c.livemode = $2 AND c.subscription_id = p.subscription_id
     AND c.billing_period_id = p.id
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = ANY ($3::uuid[])
), chain AS (
    SELECT id AS first_id, superseded_by_calculation_id AS id, 1 AS step
    FROM calculated
    WHERE status = 'superseded'
    UNION ALL
    -- A circle comes to its end here, too.
    SELECT chain.first_id, c.superseded_by_calculation_id, chain.step + 1
    FROM chain
    JOIN calculations c ON c.tenant_id = $1 AND c.livemode = $2 AND c.id = chain.id
    WHERE c.status = 'superseded' AND chain.step < 1000
)
SELECT f.subscription_id, f.billing_period_id, f.id AS calculation_id, f.component_id, f.currency,
       'the calculation was superseded, and none that is active took its place' AS problem
FROM calculated f
WHERE f.status = 'superseded' AND NOT EXISTS (
    SELECT FROM chain
    JOIN calculations l ON l.tenant_id = $1 AND l.livemode = $2 AND l.id = chain.id
    WHERE chain.first_id = f.id AND l.status = 'active'
      AND l.billing_period_id = f.billing_period_id AND l.component_id = f.component_id
)
UNION ALL
SELECT subscription_id, billing_period_id, (array_agg(id ORDER BY id))[2], component_id,
       max(currency), format('the component has %s active calculations in the period', count(*))
FROM calculated
WHERE status = 'active'
GROUP BY subscription_id, billing_period_id, component_id
HAVING count(*) > 1
