-- What the account of a credit holds is its history: issued, adjusted, clawed back by refunds,
-- applied, given back, expired. The history is told by the records, not by their entries, where there
-- are records.
WITH entries AS MATERIALIZED (
    SELECT * FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND status = 'posted' AND source_usage_credit_id IS NOT NULL
), both_sides AS (
    SELECT subscription_id, id, issued_amount AS expected_amount, 0 AS actual_amount
    FROM usage_credits
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT k.subscription_id, k.id,
           (j.amount_adjusted - j.deficit_amount)
               * CASE j.direction WHEN 'increase' THEN 1 ELSE -1 END, 0
    FROM usage_credits k
    JOIN usage_credit_balance_adjustments j
      ON j.tenant_id = $1 AND j.livemode = $2 AND j.usage_credit_id = k.id
    WHERE k.tenant_id = $1 AND k.livemode = $2 AND k.subscription_id = ANY ($3::uuid[])
      AND j.source_refund_id IS NULL
    UNION ALL
    SELECT p.subscription_id, p.usage_credit_id, -(r.clawed_back_amount + r.reversed_amount), 0
    FROM payments p
    JOIN refunds r
      ON r.tenant_id = $1 AND r.livemode = $2 AND r.payment_id = p.id AND r.status = 'succeeded'
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT a.subscription_id, a.usage_credit_id, -a.amount_applied, 0
    FROM usage_credit_applications a
    JOIN ledger_entries e
      ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = a.subscription_id
     AND e.ledger_transaction_id = a.ledger_transaction_id AND e.id = a.id
     AND e.status = 'posted'
    WHERE a.tenant_id = $1 AND a.livemode = $2 AND a.subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT subscription_id, source_usage_credit_id, -amount, 0
    FROM entries WHERE entry_type = 'credit_application_reversed'
    UNION ALL
    SELECT subscription_id, source_usage_credit_id, amount, 0
    FROM entries WHERE entry_type = 'credit_grant_expired'
    UNION ALL
    SELECT e.subscription_id, leg.id, 0, leg.sign * abs(e.amount)
    FROM entries e
    CROSS JOIN LATERAL (
        VALUES (e.credit_account_id, 1), (e.debit_account_id, -1)
    ) AS leg (id, sign)
    WHERE leg.id = e.source_usage_credit_id
)
SELECT b.subscription_id, b.id AS usage_credit_id, k.currency,
       sum(b.expected_amount) AS expected_amount, sum(b.actual_amount) AS actual_amount,
       'the account of the credit does not hold what its history leaves' AS problem
FROM both_sides b
LEFT JOIN usage_credits k ON k.tenant_id = $1 AND k.livemode = $2 AND k.id = b.id
GROUP BY b.subscription_id, b.id, k.currency
HAVING sum(b.expected_amount) <> sum(b.actual_amount)
