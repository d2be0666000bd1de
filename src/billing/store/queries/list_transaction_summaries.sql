-- The transactions of a subscription, newest first, each with what its posted entries did. A
-- credit's account has the credit's id.
WITH own AS (
    SELECT s.receivable_account_id AS receivable_id, c.id AS clearing_id
    FROM subscriptions s
    LEFT JOIN ledger_accounts c
      ON c.tenant_id = $1 AND c.livemode = $2 AND c.kind = 'refund_clearing'
     AND c.kind <> 'credit' AND c.currency = s.currency AND c.subscription_id = s.id
    WHERE s.tenant_id = $1 AND s.livemode = $2 AND s.id = $3
), page AS MATERIALIZED (
    SELECT t.id, t.subscription_id, t.initiating_source_type, t.initiating_source_id,
           t.description, t.created_at
    FROM ledger_transactions t
    WHERE t.tenant_id = $1 AND t.livemode = $2 AND t.subscription_id = $3
      AND ($4::uuid IS NULL OR t.id < $4)
      AND ($5::text IS NULL OR t.initiating_source_type = $5)
      AND ($6::timestamptz IS NULL OR t.created_at >= $6)
      AND ($7::timestamptz IS NULL OR t.created_at < $7)
    ORDER BY t.id DESC
    LIMIT $8
)
SELECT page.*, sums.*
FROM page
CROSS JOIN own
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE status = 'posted') AS posted_entry_count,
           count(*) FILTER (WHERE status <> 'posted' AND discarded_at IS NULL)
               AS pending_entry_count,
           coalesce(sum(amount * (credited - owed - clearing)) FILTER (WHERE status = 'posted'), 0)
               ::bigint AS net,
           coalesce(sum(amount * owed) FILTER (WHERE status = 'posted'), 0)::bigint
               AS outstanding_change,
           coalesce(sum(amount * credited) FILTER (WHERE status = 'posted'), 0)::bigint
               AS credit_balance_change
    FROM (
        SELECT e.status, e.discarded_at, abs(e.amount) AS amount,
               (e.debit_account_id = own.receivable_id)::int
                   - (e.credit_account_id = own.receivable_id)::int AS owed,
               coalesce((e.credit_account_id = e.source_usage_credit_id)::int
                   - (e.debit_account_id = e.source_usage_credit_id)::int, 0) AS credited,
               coalesce((e.debit_account_id = own.clearing_id)::int
                   - (e.credit_account_id = own.clearing_id)::int, 0) AS clearing
        FROM ledger_entries e
        WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = $3
          AND e.ledger_transaction_id = page.id
    ) AS legs
) AS sums
ORDER BY page.id DESC
