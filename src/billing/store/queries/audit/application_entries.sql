-- The use of a credit has an entry with its id and its facts; no more is taken back of it than it
-- paid.
WITH reversed AS MATERIALIZED (
    SELECT source_credit_application_id AS id, sum(-amount) AS amount
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type = 'credit_application_reversed' AND discarded_at IS NULL
    GROUP BY source_credit_application_id
), applied AS MATERIALIZED (
    SELECT *
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type IN ('credit_applied_to_usage', 'credit_applied_to_charge')
), used AS MATERIALIZED (
    SELECT *
    FROM usage_credit_applications
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
), pairs AS (
    SELECT coalesce(a.subscription_id, e.subscription_id) AS subscription_id,
           coalesce(a.billing_period_id, e.billing_period_id) AS billing_period_id,
           coalesce(a.id, e.source_credit_application_id) AS credit_application_id,
           coalesce(a.usage_credit_id, e.source_usage_credit_id) AS usage_credit_id,
           e.id AS ledger_entry_id, coalesce(a.currency, e.currency) AS currency,
           a.amount_applied AS expected_amount, e.amount AS actual_amount,
           CASE WHEN e.id IS NULL THEN 'the use of a credit is not in the ledger'
                WHEN a.id IS NULL THEN 'an entry about the use of a credit that was never recorded'
                WHEN e.amount <> a.amount_applied
                    THEN 'the use of a credit is in the ledger with another amount'
                WHEN e.source_usage_credit_id <> a.usage_credit_id
                    THEN 'the use of a credit is in the ledger as another credit''s'
                WHEN e.billing_period_id <> a.billing_period_id
                    THEN 'the use of a credit is in the ledger for another period'
                WHEN e.usage_meter_id IS DISTINCT FROM a.usage_meter_id
                    OR (e.entry_type = 'credit_applied_to_usage') <> (a.component_id IS NOT NULL)
                    THEN 'the use of a credit is in the ledger as paying something else'
                WHEN (e.ledger_transaction_id, e.currency, e.id)
                    <> (a.ledger_transaction_id, a.currency, a.id)
                    THEN 'the use of a credit is in the ledger with other facts'
           END AS problem
    FROM used a
    FULL JOIN applied e ON e.source_credit_application_id = a.id
), overdrawn AS (
    SELECT a.subscription_id, a.billing_period_id, a.id AS credit_application_id,
           a.usage_credit_id, NULL::uuid AS ledger_entry_id, a.currency,
           a.amount_applied AS expected_amount, r.amount AS actual_amount,
           'more is taken back of the use of a credit than it paid' AS problem
    FROM used a
    JOIN reversed r ON r.id = a.id
    WHERE r.amount > a.amount_applied
)
SELECT * FROM pairs WHERE problem IS NOT NULL
UNION ALL
SELECT * FROM overdrawn
