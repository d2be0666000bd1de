-- What a closed period was invoiced with is the sum of its charges; a charge for usage is what the
-- calculation of its component says, and the charge about credits is what they paid.
WITH closed AS MATERIALIZED (
    SELECT p.id, p.subscription_id, p.total_amount, s.currency
    FROM billing_periods p
    JOIN subscriptions s ON s.tenant_id = $1 AND s.livemode = $2 AND s.id = p.subscription_id
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = ANY ($3::uuid[])
      AND p.status <> 'open'
), charged AS MATERIALIZED (
    SELECT id, subscription_id, billing_period_id, charge_type, component_id, currency, amount
    FROM charges
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
), totals AS (
    SELECT billing_period_id, sum(expected_amount) AS expected_amount,
           sum(actual_amount) AS actual_amount
    FROM (
        SELECT billing_period_id, amount AS expected_amount, 0 AS actual_amount FROM charged
        UNION ALL
        SELECT id, 0, total_amount FROM closed
    ) AS both_sides
    GROUP BY billing_period_id
    HAVING sum(expected_amount) <> sum(actual_amount)
), usage AS (
    SELECT billing_period_id, component_id,
           (array_agg(charge_id) FILTER (WHERE charge_id IS NOT NULL))[1] AS charge_id,
           (array_agg(calculation_id) FILTER (WHERE calculation_id IS NOT NULL))[1]
               AS calculation_id,
           sum(expected_amount) AS expected_amount, sum(actual_amount) AS actual_amount
    FROM (
        SELECT billing_period_id, component_id, id AS charge_id, NULL::uuid AS calculation_id,
               NULL::bigint AS expected_amount, amount AS actual_amount
        FROM charged
        WHERE charge_type = 'usage'
        UNION ALL
        SELECT billing_period_id, component_id, NULL, id, total_raw_usage_amount, NULL
        FROM calculations
        WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
          AND status = 'active'
    ) AS both_sides
    GROUP BY billing_period_id, component_id
    HAVING sum(expected_amount) IS DISTINCT FROM sum(actual_amount)
), credited AS (
    SELECT billing_period_id,
           (array_agg(charge_id) FILTER (WHERE charge_id IS NOT NULL))[1] AS charge_id,
           sum(expected_amount) AS expected_amount, sum(actual_amount) AS actual_amount
    FROM (
        SELECT billing_period_id, id AS charge_id, 0 AS expected_amount, amount AS actual_amount
        FROM charged
        WHERE charge_type = 'credit'
        UNION ALL
        SELECT e.billing_period_id, NULL, -e.amount, 0
        FROM ledger_entries e
        JOIN usage_credit_applications a
          ON a.tenant_id = $1 AND a.livemode = $2 AND a.id = e.source_credit_application_id
        WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = ANY ($3::uuid[])
          AND e.source_credit_application_id IS NOT NULL AND e.status = 'posted'
          AND a.kind <> 'settlement'
    ) AS both_sides
    GROUP BY billing_period_id
    HAVING sum(expected_amount) <> sum(actual_amount)
), found AS (
    SELECT billing_period_id, NULL::uuid AS charge_id, NULL::uuid AS calculation_id,
           NULL::uuid AS component_id, expected_amount, actual_amount,
           'the total of the period is not the sum of its charges' AS problem
    FROM totals
    UNION ALL
    SELECT billing_period_id, charge_id, calculation_id, component_id, expected_amount,
           actual_amount,
           CASE WHEN charge_id IS NULL THEN 'a calculation without its charge'
                WHEN calculation_id IS NULL THEN 'a charge for usage without an active calculation'
                ELSE 'a charge for usage is not what its calculation says'
           END
    FROM usage
    UNION ALL
    SELECT billing_period_id, charge_id, NULL, NULL, expected_amount, actual_amount,
           'the charge about credits is not what credits paid'
    FROM credited
)
SELECT closed.subscription_id, found.billing_period_id, found.charge_id, found.calculation_id,
       found.component_id, closed.currency, found.expected_amount, found.actual_amount,
       found.problem
FROM found
JOIN closed ON closed.id = found.billing_period_id
UNION ALL
SELECT closed.subscription_id, c.billing_period_id, c.id, NULL, c.component_id, c.currency, NULL,
       c.amount, 'a charge in another currency than the subscription''s'
FROM charged c
JOIN closed ON closed.id = c.billing_period_id
WHERE c.currency <> closed.currency
