-- Refund clearing joins a refund with what it takes back: it is zero after every transaction.
WITH legs AS (
    SELECT e.subscription_id, e.ledger_transaction_id, e.currency,
           abs(e.amount) * ((e.debit_account_id = a.id)::integer
               - (e.credit_account_id = a.id)::integer) AS amount
    FROM ledger_accounts a
    JOIN ledger_entries e
      ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = a.subscription_id
     AND a.id IN (e.debit_account_id, e.credit_account_id)
    WHERE a.tenant_id = $1 AND a.livemode = $2 AND a.kind = 'refund_clearing'
      AND a.subscription_id = ANY ($3::uuid[]) AND e.status = 'posted'
)
SELECT l.subscription_id, l.ledger_transaction_id,
       CASE t.initiating_source_type WHEN 'refund' THEN t.initiating_source_id END AS refund_id,
       l.currency, 0 AS expected_amount, sum(l.amount) AS actual_amount,
       'refund clearing is not zero after the transaction' AS problem
FROM legs l
LEFT JOIN ledger_transactions t
  ON t.tenant_id = $1 AND t.livemode = $2 AND t.id = l.ledger_transaction_id
GROUP BY l.subscription_id, l.ledger_transaction_id, t.initiating_source_type,
         t.initiating_source_id, l.currency
HAVING sum(l.amount) <> 0
