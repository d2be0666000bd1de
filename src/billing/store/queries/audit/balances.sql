-- What GetBalance serves ($4 to $9: subscriptions, and the parts of their balances), against the sums
-- of the entries at $10. A credit can be spent while it lives and its period is not billed. Entries
-- are summed up before anything is looked up for them: on tables without statistics each look-up may
-- read a tenant's rows.
WITH served AS (
    SELECT *
    FROM unnest($4::uuid[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
        AS u (subscription_id, unbilled, billed_not_invoiced, invoiced, credit_balance,
              available_credit)
), entries AS MATERIALIZED (
    SELECT subscription_id, billing_period_id, source_usage_credit_id, debit_account_id,
           credit_account_id, status = 'posted' AS is_posted, sum(abs(amount)) AS amount
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND discarded_at IS NULL
    GROUP BY subscription_id, billing_period_id, source_usage_credit_id, debit_account_id,
             credit_account_id, status
), owed AS (
    SELECT e.subscription_id, p.status,
           e.amount * ((e.debit_account_id = s.receivable_account_id)::integer
               - (e.credit_account_id = s.receivable_account_id)::integer) AS amount
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
    WHERE e.is_posted
), moved AS MATERIALIZED (
    SELECT subscription_id, source_usage_credit_id AS id,
           sum(amount * ((credit_account_id = source_usage_credit_id)::integer
               - (debit_account_id = source_usage_credit_id)::integer))
               FILTER (WHERE is_posted) AS posted,
           sum(amount) FILTER (
               WHERE NOT is_posted AND debit_account_id = source_usage_credit_id
           ) AS pending
    FROM entries
    WHERE source_usage_credit_id IS NOT NULL
    GROUP BY subscription_id, source_usage_credit_id
), credits AS (
    SELECT moved.subscription_id, coalesce(moved.posted, 0) AS posted,
           CASE WHEN b.voided_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $10)
                 AND (k.billing_period_id IS NULL OR p.status = 'open')
                THEN coalesce(moved.posted, 0) - coalesce(moved.pending, 0) ELSE 0
           END AS available
    FROM moved
    CROSS JOIN LATERAL (
        SELECT own.expires_at, own.billing_period_id FROM usage_credits own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = moved.id
        LIMIT 1
    ) AS k
    LEFT JOIN LATERAL (
        SELECT own.voided_at FROM usage_credit_balances own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.usage_credit_id = moved.id
        LIMIT 1
    ) AS b ON true
    LEFT JOIN LATERAL (
        SELECT own.status FROM billing_periods own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = k.billing_period_id
        LIMIT 1
    ) AS p ON true
), both_sides AS (
    SELECT u.subscription_id, part.name, 0 AS expected_amount, part.amount AS actual_amount
    FROM served u
    CROSS JOIN LATERAL (VALUES
        ('unbilled', u.unbilled), ('billed and not invoiced', u.billed_not_invoiced),
        ('invoiced', u.invoiced), ('credit balance', u.credit_balance),
        ('available credit', u.available_credit)
    ) AS part (name, amount)
    UNION ALL
    SELECT subscription_id,
           CASE status WHEN 'open' THEN 'unbilled' WHEN 'billed' THEN 'billed and not invoiced'
                       ELSE 'invoiced' END,
           amount, 0
    FROM owed
    UNION ALL
    SELECT subscription_id, 'credit balance', posted, 0 FROM credits
    UNION ALL
    SELECT subscription_id, 'available credit', available, 0 FROM credits
), summed AS (
    SELECT subscription_id, name, sum(expected_amount) AS expected_amount,
           sum(actual_amount) AS actual_amount
    FROM both_sides
    GROUP BY subscription_id, name
    HAVING sum(expected_amount) <> sum(actual_amount)
)
SELECT summed.subscription_id, s.currency, summed.expected_amount, summed.actual_amount,
       format('the balance that is served is not the sum of the entries: %s', summed.name)
           AS problem
FROM summed
JOIN subscriptions s ON s.tenant_id = $1 AND s.livemode = $2 AND s.id = summed.subscription_id
