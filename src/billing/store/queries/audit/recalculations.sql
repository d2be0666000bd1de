-- What a recalculation says that it changed is what the entries of its transaction change.
WITH parts AS (
    SELECT r.subscription_id, r.billing_period_id, r.id, r.currency, part.name,
           part.amount AS expected_amount, 0 AS actual_amount
    FROM recalculations r
    CROSS JOIN LATERAL (VALUES
        ('what usage costs', r.raw_change_amount),
        ('what credits pay', r.credits_change_amount),
        ('what is recovered of write-offs', r.recovered_amount),
        ('what is released of payments', r.released_amount),
        ('what becomes credit', r.surplus_amount)
    ) AS part (name, amount)
    WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT r.subscription_id, r.billing_period_id, r.id, r.currency,
           CASE e.entry_type
               WHEN 'billing_adjustment' THEN 'what usage costs'
               WHEN 'receivable_written_off' THEN 'what is recovered of write-offs'
               WHEN 'surplus_credited' THEN 'what becomes credit'
               ELSE CASE a.kind WHEN 'settlement' THEN 'what is released of payments'
                                ELSE 'what credits pay' END
           END,
           0,
           CASE WHEN e.entry_type = 'surplus_credited' OR a.kind <> 'settlement' THEN e.amount
                ELSE -e.amount END
    FROM recalculations r
    JOIN ledger_entries e
      ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = r.subscription_id
     AND e.ledger_transaction_id = r.ledger_transaction_id AND e.status = 'posted'
     AND e.entry_type IN (
         'billing_adjustment', 'receivable_written_off', 'surplus_credited',
         'credit_applied_to_usage', 'credit_applied_to_charge', 'credit_application_reversed'
     )
    LEFT JOIN usage_credit_applications a
      ON a.tenant_id = $1 AND a.livemode = $2 AND a.id = e.source_credit_application_id
    WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.subscription_id = ANY ($3::uuid[])
)
SELECT subscription_id, billing_period_id, id AS recalculation_id, currency,
       sum(expected_amount) AS expected_amount, sum(actual_amount) AS actual_amount,
       format('the recalculation and its entries differ in %s', name) AS problem
FROM parts
GROUP BY subscription_id, billing_period_id, id, currency, name
HAVING sum(expected_amount) <> sum(actual_amount)
