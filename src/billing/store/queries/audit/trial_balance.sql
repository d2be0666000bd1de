-- Of a tenant: in every currency the posted debits are the posted credits. An account that does not
-- exist, or is of another currency than its entry, leaves one side without the other.
WITH moved AS MATERIALIZED (
    SELECT debit_account_id, credit_account_id, sum(abs(amount)) AS amount
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND status = 'posted'
    GROUP BY debit_account_id, credit_account_id
), legs AS MATERIALIZED (
    SELECT account_id, sum(amount) AS amount
    FROM (
        SELECT debit_account_id AS account_id, amount FROM moved
        UNION ALL
        SELECT credit_account_id, -amount FROM moved
    ) AS both_legs
    GROUP BY account_id
)
SELECT a.currency, 0 AS expected_amount, sum(legs.amount) AS actual_amount,
       'the posted debits less the posted credits are not zero' AS problem
FROM legs
JOIN ledger_accounts a ON a.tenant_id = $1 AND a.livemode = $2 AND a.id = legs.account_id
GROUP BY a.currency
HAVING sum(legs.amount) <> 0
