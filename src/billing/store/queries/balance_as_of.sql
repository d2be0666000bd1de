-- What a subscription owed and had at a moment, by recorded time, from the entries posted by then.
-- What was pending then is on the books, but its debits of credits could not be spent.
WITH entries AS (
    SELECT e.billing_period_id, e.source_usage_credit_id, e.debit_account_id, e.credit_account_id,
           abs(e.amount) AS amount, (e.posted_at <= $4) IS TRUE AS is_posted
    FROM ledger_entries e
    WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = $3
      AND e.entry_timestamp <= $4
      AND (e.posted_at <= $4 OR e.discarded_at IS NULL OR e.discarded_at > $4)
), owed AS (
    SELECT e.billing_period_id,
           sum(CASE WHEN e.debit_account_id = s.receivable_account_id THEN e.amount
                    WHEN e.credit_account_id = s.receivable_account_id THEN -e.amount
               END) AS amount
    FROM entries e
    JOIN subscriptions s ON s.tenant_id = $1 AND s.livemode = $2 AND s.id = $3
    WHERE e.is_posted
    GROUP BY e.billing_period_id
), by_state AS (
    SELECT coalesce(sum(o.amount) FILTER (
               WHERE p.billed_at IS NULL OR p.billed_at > $4
           ), 0) AS unbilled,
           coalesce(sum(o.amount) FILTER (
               WHERE p.billed_at <= $4 AND (p.invoiced_at IS NULL OR p.invoiced_at > $4)
           ), 0) AS billed_not_invoiced,
           coalesce(sum(o.amount) FILTER (WHERE p.invoiced_at <= $4), 0) AS invoiced
    FROM owed o
    JOIN billing_periods p
      ON p.tenant_id = $1 AND p.livemode = $2 AND p.id = o.billing_period_id
), moved AS MATERIALIZED (
    SELECT source_usage_credit_id AS id,
           sum(CASE WHEN NOT is_posted THEN 0
                    WHEN credit_account_id = source_usage_credit_id THEN amount
                    WHEN debit_account_id = source_usage_credit_id THEN -amount
                    ELSE 0 END) AS posted,
           sum(CASE WHEN NOT is_posted AND debit_account_id = source_usage_credit_id THEN amount
                    ELSE 0 END) AS pending
    FROM entries
    WHERE source_usage_credit_id IS NOT NULL
    GROUP BY source_usage_credit_id
), by_credit AS (
    SELECT moved.posted, moved.pending,
           (k.expires_at IS NULL OR k.expires_at > $4)
               AND (b.voided_at IS NULL OR b.voided_at > $4)
               AND (p.id IS NULL OR p.billed_at IS NULL OR p.billed_at > $4) AS is_live
    FROM moved
    CROSS JOIN LATERAL (
        SELECT own.expires_at, own.billing_period_id FROM usage_credits own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = moved.id
        LIMIT 1
    ) AS k
    CROSS JOIN LATERAL (
        SELECT own.voided_at FROM usage_credit_balances own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.usage_credit_id = moved.id
        LIMIT 1
    ) AS b
    LEFT JOIN LATERAL (
        SELECT own.id, own.billed_at FROM billing_periods own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = k.billing_period_id
        LIMIT 1
    ) AS p ON true
)
SELECT by_state.unbilled::bigint, by_state.billed_not_invoiced::bigint, by_state.invoiced::bigint,
       coalesce(sum(by_credit.posted), 0)::bigint AS credit_balance,
       coalesce(sum(by_credit.posted - by_credit.pending) FILTER (WHERE by_credit.is_live), 0)
           ::bigint AS available_credit
FROM by_state
LEFT JOIN by_credit ON true
GROUP BY by_state.unbilled, by_state.billed_not_invoiced, by_state.invoiced
