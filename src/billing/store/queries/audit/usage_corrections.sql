-- A correction of a usage event has an entry with its id and its facts, and the other way round.
WITH corrected AS MATERIALIZED (
    SELECT *
    FROM usage_event_corrections
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
), entered AS MATERIALIZED (
    SELECT *
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type = 'usage_cost_corrected'
)
SELECT coalesce(c.subscription_id, e.subscription_id) AS subscription_id,
       coalesce(c.billing_period_id, e.billing_period_id) AS billing_period_id,
       e.id AS ledger_entry_id, c.id AS usage_event_correction_id,
       coalesce(c.usage_event_id, e.source_usage_event_id) AS usage_event_id,
       coalesce(c.currency, e.currency) AS currency,
       -c.cost_change_amount AS expected_amount, e.amount AS actual_amount,
       CASE WHEN e.id IS NULL THEN 'a correction of usage that is not in the ledger'
            WHEN c.id IS NULL THEN 'an entry about a correction of usage that was never recorded'
            WHEN e.amount <> -c.cost_change_amount
                THEN 'a correction of usage that is in the ledger with another amount'
            ELSE 'a correction of usage that is in the ledger with other facts'
       END AS problem
FROM corrected c
FULL JOIN entered e ON e.id = c.id
WHERE (c.id, c.usage_event_id, c.billing_period_id, c.ledger_transaction_id, c.currency,
       -c.cost_change_amount)
      IS DISTINCT FROM
      (e.id, e.source_usage_event_id, e.billing_period_id, e.ledger_transaction_id, e.currency,
       e.amount)
