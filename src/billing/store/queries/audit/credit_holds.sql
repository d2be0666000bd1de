-- What is held of a credit is in the hands of pending entries.
WITH both_sides AS (
    SELECT subscription_id, usage_credit_id, held_amount AS actual_amount, 0 AS expected_amount
    FROM usage_credit_balances
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT subscription_id, debit_account_id, 0, abs(amount)
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND status = 'pending' AND discarded_at IS NULL
      AND debit_account_id = source_usage_credit_id
)
SELECT b.subscription_id, b.usage_credit_id, k.currency,
       sum(b.expected_amount) AS expected_amount, sum(b.actual_amount) AS actual_amount,
       'what is held of the credit is not what pending entries hold' AS problem
FROM both_sides b
LEFT JOIN usage_credits k ON k.tenant_id = $1 AND k.livemode = $2 AND k.id = b.usage_credit_id
GROUP BY b.subscription_id, b.usage_credit_id, k.currency
HAVING sum(b.expected_amount) <> sum(b.actual_amount)
