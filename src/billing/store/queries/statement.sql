-- How a subscription came from one balance to another: both ends, and a page of the movements.
-- One statement, so that all of it is of one moment.
-- Span: posted from $4 on and before $5. With a billing period ($6) an entry stands where its own
-- period stands, whenever it was posted; one of no period stands where it was posted.
-- A credit's account has the credit's id. Two legs on own accounts leave the balance as it is.
WITH own AS (
    SELECT s.receivable_account_id AS receivable_id, c.id AS clearing_id
    FROM subscriptions s
    LEFT JOIN ledger_accounts c
      ON c.tenant_id = $1 AND c.livemode = $2 AND c.kind = 'refund_clearing'
     AND c.kind <> 'credit' AND c.currency = s.currency AND c.subscription_id = s.id
    WHERE s.tenant_id = $1 AND s.livemode = $2 AND s.id = $3
), legs AS (
    SELECT e.ledger_transaction_id, e.id, e.posted_at,
           abs(e.amount) AS amount,
           (e.debit_account_id = own.receivable_id)::int
               - (e.credit_account_id = own.receivable_id)::int AS owed,
           coalesce((e.credit_account_id = e.source_usage_credit_id)::int
               - (e.debit_account_id = e.source_usage_credit_id)::int, 0) AS credited,
           coalesce((e.debit_account_id = own.clearing_id)::int
               - (e.credit_account_id = own.clearing_id)::int, 0) AS clearing,
           CASE WHEN e.billing_period_id = $6 THEN 'inside'
                WHEN coalesce(p.period_start, e.posted_at) < $4 THEN 'before'
                WHEN coalesce(p.period_start, e.posted_at) < $5 THEN 'inside'
                ELSE 'after' END AS place
    FROM own
    CROSS JOIN ledger_entries e
    LEFT JOIN billing_periods p
      ON $6::uuid IS NOT NULL AND p.tenant_id = $1 AND p.livemode = $2
     AND p.subscription_id = $3 AND p.id = e.billing_period_id
    WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = $3
      AND e.status = 'posted'
), posted AS MATERIALIZED (
    SELECT ledger_transaction_id, id, posted_at, place, amount * owed AS owed,
           amount * credited AS credited, amount * clearing AS clearing,
           amount * (credited - owed - clearing) AS net
    FROM legs
    WHERE place <> 'after'
), ends AS MATERIALIZED (
    SELECT coalesce(sum(owed) FILTER (WHERE place = 'before'), 0)::bigint AS opening_outstanding,
           coalesce(sum(credited) FILTER (WHERE place = 'before'), 0)::bigint AS opening_credit,
           coalesce(sum(clearing) FILTER (WHERE place = 'before'), 0)::bigint AS opening_clearing,
           coalesce(sum(net) FILTER (WHERE place = 'before'), 0)::bigint AS opening_net,
           coalesce(sum(owed), 0)::bigint AS closing_outstanding,
           coalesce(sum(credited), 0)::bigint AS closing_credit,
           coalesce(sum(clearing), 0)::bigint AS closing_clearing
    FROM posted
), inside AS MATERIALIZED (
    SELECT posted_at, ledger_transaction_id, id,
           sum(net) OVER (ORDER BY posted_at, ledger_transaction_id, id) AS moved
    FROM posted
    WHERE place = 'inside' AND net <> 0
), page AS MATERIALIZED (
    SELECT posted_at, ledger_transaction_id, id, moved
    FROM inside
    WHERE $7::uuid IS NULL
       OR (posted_at, ledger_transaction_id, id) > (
           SELECT own.posted_at, own.ledger_transaction_id, own.id FROM inside own
           WHERE own.ledger_transaction_id = $7 AND own.id = $8
       )
    ORDER BY posted_at, ledger_transaction_id, id
    LIMIT $9
)
SELECT ends.*, (ends.opening_net + page.moved)::bigint AS running_net,
       e.*, d.kind AS debit_account_kind, c.kind AS credit_account_kind
FROM ends
LEFT JOIN page ON true
LEFT JOIN LATERAL (
    SELECT own.* FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = $3
      AND own.ledger_transaction_id = page.ledger_transaction_id AND own.id = page.id
    LIMIT 1
) AS e ON true
LEFT JOIN LATERAL (
    SELECT own.kind FROM ledger_accounts own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = e.debit_account_id
    LIMIT 1
) AS d ON true
LEFT JOIN LATERAL (
    SELECT own.kind FROM ledger_accounts own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = e.credit_account_id
    LIMIT 1
) AS c ON true
ORDER BY page.posted_at, page.ledger_transaction_id, page.id
