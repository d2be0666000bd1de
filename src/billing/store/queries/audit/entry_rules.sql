-- An entry moves value between the kinds of account that its type and sign ask for ($4 to $7: the
-- posting rules), of its own currency and subscription, and says for which period it is owed. Entries
-- that have the same in common are judged together, and looked up one by one only if they are wrong.
WITH moves AS MATERIALIZED (
    SELECT DISTINCT subscription_id, entry_type, amount > 0 AS is_positive, currency,
           debit_account_id, credit_account_id, source_usage_credit_id,
           source_refund_id IS NULL AS lacks_refund, billing_period_id IS NULL AS lacks_period
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
), wrong AS MATERIALIZED (
    SELECT m.*, found.problem
    FROM moves m
    CROSS JOIN LATERAL (
        SELECT own.currency FROM subscriptions own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = m.subscription_id
        LIMIT 1
    ) AS s
    LEFT JOIN LATERAL (
        SELECT own.id, own.kind, own.currency, own.subscription_id FROM ledger_accounts own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = m.debit_account_id
        LIMIT 1
    ) AS d ON true
    LEFT JOIN LATERAL (
        SELECT own.id, own.kind, own.currency, own.subscription_id FROM ledger_accounts own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = m.credit_account_id
        LIMIT 1
    ) AS c ON true
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN d.id IS NULL OR c.id IS NULL THEN 'one of its accounts does not exist'
            WHEN m.currency <> s.currency THEN 'its currency is not the subscription''s'
            WHEN d.currency <> m.currency OR c.currency <> m.currency
                THEN 'one of its accounts has another currency'
            WHEN coalesce(d.subscription_id, m.subscription_id) <> m.subscription_id
                OR coalesce(c.subscription_id, m.subscription_id) <> m.subscription_id
                THEN 'one of its accounts is another subscription''s'
            WHEN (m.entry_type, CASE WHEN m.is_positive THEN 1 ELSE -1 END, d.kind, c.kind) NOT IN (
                SELECT * FROM unnest($4::text[], $5::integer[], $6::text[], $7::text[])
            ) THEN format(
                '%s of this sign cannot debit %s and credit %s', m.entry_type, d.kind, c.kind
            )
            WHEN (d.kind = 'credit' AND d.id IS DISTINCT FROM m.source_usage_credit_id)
                OR (c.kind = 'credit' AND c.id IS DISTINCT FROM m.source_usage_credit_id)
                THEN 'the credit that it moves is not the one that it names'
            WHEN m.entry_type IN ('credit_balance_adjusted', 'credit_deficit_charged')
                AND m.lacks_refund = (c.kind = 'refund_clearing')
                THEN 'refund clearing and a refund as its source do not go together'
            WHEN m.lacks_period AND 'receivable' IN (d.kind, c.kind)
                THEN 'it changes what is owed, and does not say for which period'
        END AS problem
    ) AS found
    WHERE found.problem IS NOT NULL
)
SELECT e.subscription_id, e.billing_period_id, e.id AS ledger_entry_id, e.ledger_transaction_id,
       e.currency, e.amount AS actual_amount,
       'the entry breaks a posting rule: ' || w.problem AS problem
FROM wrong w
JOIN ledger_entries e
  ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = w.subscription_id
 AND (e.entry_type, e.amount > 0, e.currency, e.debit_account_id, e.credit_account_id)
     = (w.entry_type, w.is_positive, w.currency, w.debit_account_id, w.credit_account_id)
 AND e.source_usage_credit_id IS NOT DISTINCT FROM w.source_usage_credit_id
 AND (e.source_refund_id IS NULL, e.billing_period_id IS NULL) = (w.lacks_refund, w.lacks_period)
