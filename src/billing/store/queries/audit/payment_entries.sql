-- A payment that succeeded is in the ledger with its amount, as the credit that it names; another
-- one is not. Its refunds are never more than it.
WITH received AS (
    SELECT subscription_id, source_payment_id AS id,
           sum(amount) AS amount,
           array_agg(source_usage_credit_id) AS usage_credit_ids, (array_agg(id))[1] AS entry_id
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type = 'payment_recognized' AND status = 'posted'
    GROUP BY subscription_id, source_payment_id
), refunded AS (
    SELECT payment_id AS id, sum(amount) AS amount
    FROM refunds
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND status <> 'failed'
    GROUP BY payment_id
), paid AS MATERIALIZED (
    SELECT *, CASE status WHEN 'succeeded' THEN amount ELSE 0 END AS expected_amount
    FROM payments
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
)
SELECT coalesce(p.subscription_id, r.subscription_id) AS subscription_id,
       r.entry_id AS ledger_entry_id, coalesce(p.id, r.id) AS payment_id, p.usage_credit_id,
       p.currency,
       coalesce(p.expected_amount, 0) AS expected_amount, coalesce(r.amount, 0) AS actual_amount,
       CASE WHEN p.id IS NULL THEN 'an entry about a payment that does not exist'
            WHEN r.id IS NULL THEN 'a payment that succeeded and is not in the ledger'
            WHEN p.status <> 'succeeded' THEN 'a payment that is in the ledger and did not succeed'
            WHEN p.amount <> r.amount THEN 'a payment that is in the ledger with another amount'
            ELSE 'a payment that is in the ledger as another credit'
       END AS problem
FROM paid p
FULL JOIN received r ON r.id = p.id
WHERE coalesce(p.expected_amount, 0) <> coalesce(r.amount, 0)
   OR r.usage_credit_ids <> ARRAY[p.usage_credit_id]
UNION ALL
SELECT p.subscription_id, NULL, p.id, p.usage_credit_id, p.currency, p.amount, r.amount,
       'the refunds of a payment are more than the payment'
FROM paid p
JOIN refunded r ON r.id = p.id
WHERE r.amount > p.expected_amount
