-- An adjustment that no refund made is in the ledger with what it changed of the credit, and with
-- what the credit could not give. Those of refunds: refund_entries.
WITH adjusted AS MATERIALIZED (
    SELECT j.*
    FROM usage_credits k
    JOIN usage_credit_balance_adjustments j
      ON j.tenant_id = $1 AND j.livemode = $2 AND j.usage_credit_id = k.id
    WHERE k.tenant_id = $1 AND k.livemode = $2 AND k.subscription_id = ANY ($3::uuid[])
      AND j.source_refund_id IS NULL
), both_sides AS (
    SELECT subscription_id, id, usage_credit_id, currency,
           (amount_adjusted - deficit_amount)
               * CASE direction WHEN 'increase' THEN 1 ELSE -1 END AS expected_amount,
           -deficit_amount AS expected_deficit, 0 AS actual_amount, 0 AS actual_deficit,
           NULL::uuid AS adjusted_entry_id, NULL::uuid AS deficit_entry_id
    FROM adjusted
    UNION ALL
    SELECT subscription_id, source_credit_balance_adjustment_id, source_usage_credit_id, currency,
           0, 0,
           CASE entry_type WHEN 'credit_balance_adjusted' THEN amount ELSE 0 END,
           CASE entry_type WHEN 'credit_deficit_charged' THEN amount ELSE 0 END,
           CASE entry_type WHEN 'credit_balance_adjusted' THEN id END,
           CASE entry_type WHEN 'credit_deficit_charged' THEN id END
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND source_credit_balance_adjustment_id IS NOT NULL AND source_refund_id IS NULL
      AND discarded_at IS NULL
), summed AS (
    SELECT subscription_id, id, usage_credit_id, currency,
           sum(expected_amount) AS expected_amount, sum(actual_amount) AS actual_amount,
           sum(expected_deficit) AS expected_deficit, sum(actual_deficit) AS actual_deficit,
           (array_agg(adjusted_entry_id) FILTER (WHERE adjusted_entry_id IS NOT NULL))[1]
               AS adjusted_entry_id,
           (array_agg(deficit_entry_id) FILTER (WHERE deficit_entry_id IS NOT NULL))[1]
               AS deficit_entry_id
    FROM both_sides
    GROUP BY subscription_id, id, usage_credit_id, currency
)
SELECT s.subscription_id, part.ledger_entry_id, s.usage_credit_id,
       s.id AS credit_balance_adjustment_id, s.currency,
       part.expected_amount, part.actual_amount, part.problem
FROM summed s
CROSS JOIN LATERAL (VALUES
    (s.adjusted_entry_id, s.expected_amount, s.actual_amount,
     'the ledger holds another change of the credit than the adjustment says'),
    (s.deficit_entry_id, s.expected_deficit, s.actual_deficit,
     'the ledger charges another deficit than the adjustment says')
) AS part (ledger_entry_id, expected_amount, actual_amount, problem)
WHERE part.expected_amount <> part.actual_amount
