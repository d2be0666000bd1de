-- Posted debits and credits by kind of account. Amounts are from the subscription's side: an entry
-- moves its absolute amount from the credited to the debited account. The ledger is read once,
-- whatever the plan: on tables without statistics it was summed up anew for each account.
WITH moved AS MATERIALIZED (
    SELECT debit_account_id, credit_account_id, sum(abs(amount)) AS amount
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND status = 'posted'
    GROUP BY debit_account_id, credit_account_id
), legs AS MATERIALIZED (
    SELECT account_id, sum(debit) AS debit, sum(credit) AS credit
    FROM (
        SELECT debit_account_id AS account_id, amount AS debit, 0 AS credit FROM moved
        UNION ALL
        SELECT credit_account_id, 0, amount FROM moved
    ) AS both_legs
    GROUP BY account_id
)
SELECT a.kind, a.currency, sum(legs.debit)::bigint AS debit_amount,
       sum(legs.credit)::bigint AS credit_amount
FROM legs
JOIN ledger_accounts a ON a.tenant_id = $1 AND a.livemode = $2 AND a.id = legs.account_id
GROUP BY a.kind, a.currency
ORDER BY a.currency, a.kind
