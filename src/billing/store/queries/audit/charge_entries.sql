-- A charge that is posted when it is billed has one entry, of its amount and period; the others are
-- about entries that are there already.
WITH both_sides AS (
    SELECT subscription_id, id AS charge_id, billing_period_id, currency,
           -amount AS expected_amount, NULL::uuid AS ledger_entry_id,
           NULL::uuid AS entry_period_id, NULL::bigint AS actual_amount
    FROM charges
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND charge_type = 'recurring' AND amount <> 0
    UNION ALL
    SELECT subscription_id, source_charge_id, NULL, currency, NULL, id, billing_period_id, amount
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type = 'charge_billed' AND status = 'posted'
), charged AS (
    SELECT subscription_id, charge_id, currency,
           (array_agg(billing_period_id) FILTER (WHERE billing_period_id IS NOT NULL))[1]
               AS billing_period_id,
           (array_agg(entry_period_id) FILTER (WHERE entry_period_id IS NOT NULL))[1]
               AS entry_period_id,
           (array_agg(ledger_entry_id) FILTER (WHERE ledger_entry_id IS NOT NULL))[1]
               AS ledger_entry_id,
           sum(expected_amount) AS expected_amount, sum(actual_amount) AS actual_amount
    FROM both_sides
    GROUP BY subscription_id, charge_id, currency
)
SELECT subscription_id, coalesce(billing_period_id, entry_period_id) AS billing_period_id,
       charge_id, ledger_entry_id, currency, expected_amount, actual_amount,
       CASE WHEN ledger_entry_id IS NULL THEN 'a charge that is not posted'
            WHEN billing_period_id IS NULL THEN 'an entry without its charge'
            WHEN billing_period_id <> entry_period_id
                THEN 'a charge that is posted for another period'
            ELSE 'a charge that is posted with another amount'
       END AS problem
FROM charged
WHERE expected_amount IS DISTINCT FROM actual_amount
   OR billing_period_id IS DISTINCT FROM entry_period_id
