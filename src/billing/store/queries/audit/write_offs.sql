-- A write-off is in the ledger with its amount, and what was recovered of it, too.
WITH both_sides AS (
    SELECT subscription_id, billing_period_id, id, currency, amount AS expected_amount,
           recovered_amount AS expected_recovered, 0 AS actual_amount, 0 AS actual_recovered
    FROM write_offs
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT subscription_id, billing_period_id, source_write_off_id, currency, 0, 0,
           greatest(amount, 0), greatest(-amount, 0)
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type = 'receivable_written_off' AND status = 'posted'
), summed AS (
    SELECT subscription_id, billing_period_id, id, currency,
           sum(expected_amount) AS expected_amount, sum(actual_amount) AS actual_amount,
           sum(expected_recovered) AS expected_recovered, sum(actual_recovered) AS actual_recovered
    FROM both_sides
    GROUP BY subscription_id, billing_period_id, id, currency
)
SELECT s.subscription_id, s.billing_period_id, s.id AS write_off_id, s.currency,
       part.expected_amount, part.actual_amount, part.problem
FROM summed s
CROSS JOIN LATERAL (VALUES
    (s.expected_amount, s.actual_amount, 'the ledger holds another amount than the write-off'),
    (s.expected_recovered, s.actual_recovered,
     'the ledger holds another recovery than the write-off says')
) AS part (expected_amount, actual_amount, problem)
WHERE part.expected_amount <> part.actual_amount
