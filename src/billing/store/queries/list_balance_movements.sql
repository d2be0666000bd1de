-- The entries of a subscription that were posted between two moments, by type and kind of cause,
-- with what they do to what it owes and has, and their first ledger transactions.
WITH moved AS MATERIALIZED (
    SELECT e.entry_type, e.ledger_transaction_id, count(*) AS entry_count, sum(e.amount) AS amount,
           sum(CASE WHEN e.debit_account_id = s.receivable_account_id THEN abs(e.amount)
                    WHEN e.credit_account_id = s.receivable_account_id THEN -abs(e.amount)
                    ELSE 0 END) AS outstanding,
           sum(CASE WHEN e.credit_account_id = e.source_usage_credit_id THEN abs(e.amount)
                    WHEN e.debit_account_id = e.source_usage_credit_id THEN -abs(e.amount)
                    ELSE 0 END) AS credit_balance,
           min(e.posted_at) AS posted_at
    FROM ledger_entries e
    JOIN subscriptions s ON s.tenant_id = $1 AND s.livemode = $2 AND s.id = $3
    WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = $3
      AND e.status = 'posted' AND e.posted_at > $4 AND e.posted_at <= $5
    GROUP BY e.entry_type, e.ledger_transaction_id
), placed AS (
    SELECT m.*, t.initiating_source_type, t.initiating_source_id, t.description,
           row_number() OVER (
               PARTITION BY m.entry_type, t.initiating_source_type
               ORDER BY m.posted_at, m.ledger_transaction_id
           ) AS place,
           count(*) OVER whole AS transaction_count,
           sum(m.entry_count) OVER whole AS movement_entry_count,
           sum(m.amount) OVER whole AS movement_amount,
           sum(m.outstanding) OVER whole AS movement_outstanding,
           sum(m.credit_balance) OVER whole AS movement_credit_balance
    FROM moved m
    JOIN ledger_transactions t
      ON t.tenant_id = $1 AND t.livemode = $2 AND t.subscription_id = $3
     AND t.id = m.ledger_transaction_id
    WINDOW whole AS (PARTITION BY m.entry_type, t.initiating_source_type)
)
SELECT entry_type, initiating_source_type, transaction_count,
       movement_entry_count::bigint, movement_amount::bigint, movement_outstanding::bigint,
       movement_credit_balance::bigint, ledger_transaction_id, initiating_source_id, description,
       entry_count, amount::bigint, posted_at
FROM placed
WHERE place <= $6
ORDER BY entry_type, initiating_source_type, place
