-- The snapshot that balances start from, on the last closed period of a subscription, is what the
-- posted entries leave of all its closed periods.
WITH snapshots AS MATERIALIZED (
    SELECT DISTINCT ON (p.subscription_id) p.subscription_id, p.id, p.closing_receivable_amount
    FROM billing_periods p
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = ANY ($3::uuid[])
      AND p.status <> 'open'
    ORDER BY p.subscription_id, p.period_start DESC
), entries AS MATERIALIZED (
    SELECT subscription_id, billing_period_id, debit_account_id, credit_account_id,
           sum(abs(amount)) AS amount
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND status = 'posted'
    GROUP BY subscription_id, billing_period_id, debit_account_id, credit_account_id
), both_sides AS (
    SELECT subscription_id, id, 0 AS expected_amount, closing_receivable_amount AS actual_amount
    FROM snapshots
    UNION ALL
    SELECT e.subscription_id, NULL,
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
    WHERE p.status <> 'open'
), summed AS (
    SELECT subscription_id,
           (array_agg(id) FILTER (WHERE id IS NOT NULL))[1] AS billing_period_id,
           sum(expected_amount) AS expected_amount, sum(actual_amount) AS actual_amount
    FROM both_sides
    GROUP BY subscription_id
    HAVING sum(expected_amount) <> sum(actual_amount)
)
SELECT summed.*, s.currency,
       'the closing snapshot is not what the entries leave of the closed periods' AS problem
FROM summed
JOIN subscriptions s ON s.tenant_id = $1 AND s.livemode = $2 AND s.id = summed.subscription_id
