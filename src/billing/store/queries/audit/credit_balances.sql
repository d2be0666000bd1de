-- What is left of a credit, spendable and held, is what its account holds in the ledger.
WITH both_sides AS (
    SELECT k.subscription_id, k.id, k.currency, b.usage_credit_id,
           b.remaining_amount + b.held_amount AS actual_amount, 0 AS expected_amount
    FROM usage_credits k
    LEFT JOIN usage_credit_balances b
      ON b.tenant_id = $1 AND b.livemode = $2 AND b.usage_credit_id = k.id
    WHERE k.tenant_id = $1 AND k.livemode = $2 AND k.subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT e.subscription_id, leg.id, e.currency, NULL, 0, leg.sign * abs(e.amount)
    FROM ledger_entries e
    CROSS JOIN LATERAL (
        VALUES (e.credit_account_id, 1), (e.debit_account_id, -1)
    ) AS leg (id, sign)
    WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = ANY ($3::uuid[])
      AND e.status = 'posted' AND leg.id = e.source_usage_credit_id
)
SELECT subscription_id, id AS usage_credit_id, currency, sum(expected_amount) AS expected_amount,
       sum(actual_amount) AS actual_amount,
       CASE WHEN count(usage_credit_id) = 0 THEN 'a credit without its balance'
            ELSE 'what is left of the credit is not what its account holds'
       END AS problem
FROM both_sides
GROUP BY subscription_id, id, currency
HAVING sum(expected_amount) <> coalesce(sum(actual_amount), 0) OR count(usage_credit_id) <> 1
