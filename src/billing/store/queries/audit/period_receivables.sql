-- What a period is owed is what its posted entries leave of it. Of an open period without its usage
-- ($4: the types of its entries), which the running figures hold.
WITH entries AS MATERIALIZED (
    SELECT subscription_id, billing_period_id, debit_account_id, credit_account_id,
           entry_type = ANY ($4::text[]) AS is_usage, sum(abs(amount)) AS amount
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND status = 'posted'
    GROUP BY subscription_id, billing_period_id, debit_account_id, credit_account_id, is_usage
), both_sides AS (
    SELECT id, 0 AS expected_amount, receivable_amount AS actual_amount
    FROM billing_periods
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT e.billing_period_id,
           e.amount * ((e.debit_account_id = s.receivable_account_id)::integer
               - (e.credit_account_id = s.receivable_account_id)::integer), 0
    FROM entries e
    CROSS JOIN LATERAL (
        SELECT own.receivable_account_id FROM subscriptions own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = e.subscription_id
        LIMIT 1
    ) AS s
    CROSS JOIN LATERAL (
        SELECT own.status FROM billing_periods own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = e.billing_period_id
        LIMIT 1
    ) AS p
    WHERE NOT (p.status = 'open' AND e.is_usage)
), summed AS (
    SELECT id, sum(expected_amount) AS expected_amount, sum(actual_amount) AS actual_amount
    FROM both_sides
    GROUP BY id
    HAVING sum(expected_amount) <> sum(actual_amount)
)
SELECT p.subscription_id, p.id AS billing_period_id, s.currency, summed.expected_amount,
       summed.actual_amount, 'what the period is owed is not what its entries leave' AS problem
FROM summed
JOIN billing_periods p ON p.tenant_id = $1 AND p.livemode = $2 AND p.id = summed.id
JOIN subscriptions s ON s.tenant_id = $1 AND s.livemode = $2 AND s.id = p.subscription_id
