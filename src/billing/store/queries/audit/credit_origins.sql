-- A credit begins with one posted entry, of what it was issued with and of where it comes from.
WITH both_sides AS (
    SELECT subscription_id, id AS usage_credit_id, currency, issued_amount AS expected_amount,
           CASE WHEN credit_type IN ('payment_top_up', 'payment_period_settlement')
                    THEN 'payment_recognized'
                WHEN credit_type = 'surplus' THEN 'surplus_credited'
                ELSE 'credit_grant_recognized'
           END AS expected_type,
           NULL::bigint AS actual_amount, NULL AS actual_type, NULL::uuid AS ledger_entry_id
    FROM usage_credits
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT subscription_id, source_usage_credit_id, currency, NULL, NULL, amount, entry_type, id
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type IN ('payment_recognized', 'credit_grant_recognized', 'surplus_credited')
      AND status = 'posted'
), begun AS (
    SELECT subscription_id, usage_credit_id, currency, max(expected_type) AS expected_type,
           max(actual_type) AS actual_type, sum(expected_amount) AS expected_amount,
           sum(actual_amount) AS actual_amount,
           (array_agg(ledger_entry_id) FILTER (WHERE ledger_entry_id IS NOT NULL))[1]
               AS ledger_entry_id
    FROM both_sides
    GROUP BY subscription_id, usage_credit_id, currency
)
SELECT subscription_id, ledger_entry_id, usage_credit_id, currency, expected_amount,
       actual_amount,
       CASE WHEN actual_type IS NULL THEN 'a credit without the entry that it begins with'
            WHEN expected_type IS NULL THEN 'an entry that begins a credit that does not exist'
            WHEN expected_type <> actual_type
                THEN format('a credit that begins with %s, not %s', actual_type, expected_type)
            ELSE 'a credit that begins with another amount than it was issued with'
       END AS problem
FROM begun
WHERE (expected_type, expected_amount) IS DISTINCT FROM (actual_type, actual_amount)
