-- Posted debits and credits by kind of account. Amounts are from the subscription's side: an entry
-- moves its absolute amount from the credited to the debited account.
SELECT a.kind, a.currency, sum(legs.debit)::bigint AS debit_amount,
       sum(legs.credit)::bigint AS credit_amount
FROM (
    SELECT debit_account_id AS account_id, sum(abs(amount)) AS debit, 0 AS credit
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND status = 'posted'
    GROUP BY debit_account_id
    UNION ALL
    SELECT credit_account_id, 0, sum(abs(amount))
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND status = 'posted'
    GROUP BY credit_account_id
) AS legs
JOIN ledger_accounts a ON a.tenant_id = $1 AND a.livemode = $2 AND a.id = legs.account_id
GROUP BY a.kind, a.currency
ORDER BY a.currency, a.kind
