-- What was in each account of a subscription at a moment, by recorded time: debits and credits
-- posted by then, and those made by then and neither posted nor discarded.
WITH accounts AS MATERIALIZED (
    SELECT a.id, a.kind, a.created_at, false AS is_spendable
    FROM subscriptions s
    JOIN ledger_accounts a
      ON a.tenant_id = $1 AND a.livemode = $2 AND a.kind IN ('receivable', 'refund_clearing')
     AND a.kind <> 'credit' AND a.currency = s.currency AND a.subscription_id = s.id
    WHERE s.tenant_id = $1 AND s.livemode = $2 AND s.id = $3
    UNION ALL
    SELECT k.id, a.kind, a.created_at,
           (k.expires_at IS NULL OR k.expires_at > $4)
               AND (b.voided_at IS NULL OR b.voided_at > $4)
               AND (p.id IS NULL OR p.billed_at IS NULL OR p.billed_at > $4)
    FROM usage_credits k
    CROSS JOIN LATERAL (
        SELECT own.kind, own.created_at FROM ledger_accounts own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = k.id
        LIMIT 1
    ) AS a
    CROSS JOIN LATERAL (
        SELECT own.voided_at FROM usage_credit_balances own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.usage_credit_id = k.id
        LIMIT 1
    ) AS b
    LEFT JOIN LATERAL (
        SELECT own.id, own.billed_at FROM billing_periods own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = k.billing_period_id
        LIMIT 1
    ) AS p ON true
    WHERE k.tenant_id = $1 AND k.livemode = $2 AND k.subscription_id = $3
), moved AS MATERIALIZED (
    SELECT e.debit_account_id, e.credit_account_id, (e.posted_at <= $4) IS TRUE AS is_posted,
           sum(abs(e.amount)) AS amount
    FROM ledger_entries e
    WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = $3
      AND e.entry_timestamp <= $4
      AND (e.posted_at <= $4 OR e.discarded_at IS NULL OR e.discarded_at > $4)
    GROUP BY 1, 2, 3
), legs AS MATERIALIZED (
    SELECT debit_account_id AS account_id, is_posted, amount AS debit, 0 AS credit FROM moved
    UNION ALL
    SELECT credit_account_id, is_posted, 0, amount FROM moved
), sums AS MATERIALIZED (
    SELECT account_id,
           coalesce(sum(debit) FILTER (WHERE is_posted), 0)::bigint AS posted_debit,
           coalesce(sum(credit) FILTER (WHERE is_posted), 0)::bigint AS posted_credit,
           coalesce(sum(debit) FILTER (WHERE NOT is_posted), 0)::bigint AS pending_debit,
           coalesce(sum(credit) FILTER (WHERE NOT is_posted), 0)::bigint AS pending_credit
    FROM legs
    GROUP BY account_id
)
SELECT a.id, a.kind, a.created_at, a.is_spendable,
       coalesce(sums.posted_debit, 0) AS posted_debit,
       coalesce(sums.posted_credit, 0) AS posted_credit,
       coalesce(sums.pending_debit, 0) AS pending_debit,
       coalesce(sums.pending_credit, 0) AS pending_credit
FROM accounts a
LEFT JOIN sums ON sums.account_id = a.id
WHERE a.created_at <= $4
ORDER BY a.created_at, a.id
