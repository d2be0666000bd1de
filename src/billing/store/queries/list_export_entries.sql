-- A page of an export, in the order of the primary key: after ($3, $4, $5), up to subscription $6,
-- posted from $7 on and before $8. With $9 what is pending too, by when it was recorded.
WITH page AS MATERIALIZED (
    SELECT e.*
    FROM ledger_entries e
    WHERE e.tenant_id = $1 AND e.livemode = $2
      AND (e.subscription_id, e.ledger_transaction_id, e.id) > ($3, $4, $5)
      AND e.subscription_id <= $6
      AND (
          (e.posted_at >= $7 AND e.posted_at < $8)
          OR ($9 AND e.posted_at IS NULL AND e.discarded_at IS NULL
              AND e.entry_timestamp >= $7 AND e.entry_timestamp < $8)
      )
    ORDER BY e.subscription_id, e.ledger_transaction_id, e.id
    LIMIT $10
)
SELECT page.*, d.kind AS debit_account_kind, c.kind AS credit_account_kind,
       t.initiating_source_type, t.initiating_source_id, t.description AS transaction_description
FROM page
CROSS JOIN LATERAL (
    SELECT own.kind FROM ledger_accounts own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = page.debit_account_id
    LIMIT 1
) AS d
CROSS JOIN LATERAL (
    SELECT own.kind FROM ledger_accounts own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = page.credit_account_id
    LIMIT 1
) AS c
CROSS JOIN LATERAL (
    SELECT own.initiating_source_type, own.initiating_source_id, own.description
    FROM ledger_transactions own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = page.ledger_transaction_id
    LIMIT 1
) AS t
ORDER BY page.subscription_id, page.ledger_transaction_id, page.id
