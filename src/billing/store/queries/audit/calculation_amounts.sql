-- The active calculation of a component in a closed period says what the ledger holds: the posted
-- usage ($4: the types of its entries), and what credits other than settlements paid of it.
WITH closed AS MATERIALIZED (
    SELECT id, subscription_id
    FROM billing_periods
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND status <> 'open'
), both_sides AS (
    SELECT c.billing_period_id, c.usage_meter_id, c.id AS calculation_id,
           0 AS expected_raw, 0 AS expected_credits,
           c.total_raw_usage_amount AS actual_raw, c.credits_applied_amount AS actual_credits
    FROM calculations c
    WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.subscription_id = ANY ($3::uuid[])
      AND c.status = 'active'
    UNION ALL
    SELECT billing_period_id, usage_meter_id, NULL, -amount, 0, 0, 0
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type = ANY ($4::text[]) AND status = 'posted'
    UNION ALL
    SELECT e.billing_period_id, e.usage_meter_id, NULL, 0, e.amount, 0, 0
    FROM ledger_entries e
    JOIN usage_credit_applications a
      ON a.tenant_id = $1 AND a.livemode = $2 AND a.id = e.source_credit_application_id
    WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = ANY ($3::uuid[])
      AND e.source_credit_application_id IS NOT NULL AND e.usage_meter_id IS NOT NULL
      AND e.status = 'posted' AND a.kind <> 'settlement'
), summed AS (
    SELECT billing_period_id, usage_meter_id,
           (array_agg(calculation_id) FILTER (WHERE calculation_id IS NOT NULL))[1]
               AS calculation_id,
           sum(expected_raw) AS expected_raw, sum(expected_credits) AS expected_credits,
           sum(actual_raw) AS actual_raw, sum(actual_credits) AS actual_credits
    FROM both_sides
    GROUP BY billing_period_id, usage_meter_id
)
SELECT closed.subscription_id, s.billing_period_id, s.calculation_id, s.usage_meter_id,
       part.expected_amount, part.actual_amount,
       CASE WHEN s.calculation_id IS NULL
                THEN 'the period is billed, and the meter has no active calculation'
            ELSE part.problem
       END AS problem
FROM summed s
JOIN closed ON closed.id = s.billing_period_id
CROSS JOIN LATERAL (VALUES
    (s.expected_raw, s.actual_raw,
     'the raw usage of the calculation is not what the ledger holds'),
    (s.expected_credits, s.actual_credits,
     'the credits of the calculation are not what the ledger holds'),
    (s.actual_raw - s.actual_credits, (
        SELECT c.net_billed_amount FROM calculations c
        WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.id = s.calculation_id
     ), 'the net of the calculation is not its raw usage less its credits')
) AS part (expected_amount, actual_amount, problem)
WHERE part.expected_amount <> part.actual_amount
