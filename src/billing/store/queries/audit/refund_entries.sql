-- The parts of a refund are what its entries say: of one that succeeded the posted ones, of a
-- pending one those that hold its parts. What a failed one held is discarded (pending_entries).
WITH parts AS (
    SELECT r.subscription_id, r.id, r.currency, part.name,
           CASE WHEN r.status = 'failed' THEN 0 ELSE part.amount END AS expected_amount,
           0 AS actual_amount
    FROM refunds r
    CROSS JOIN LATERAL (VALUES
        ('paid back', r.amount),
        ('taken from the credit', r.clawed_back_amount
            + CASE r.status WHEN 'succeeded' THEN r.reversed_amount ELSE 0 END),
        ('charged as a deficit', r.deficit_amount),
        ('absorbed', CASE r.status WHEN 'succeeded'
            THEN r.amount - r.clawed_back_amount - r.reversed_amount - r.deficit_amount
            ELSE 0 END)
    ) AS part (name, amount)
    WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT e.subscription_id, e.source_refund_id, e.currency,
           CASE e.entry_type
               WHEN 'payment_refunded' THEN 'paid back'
               WHEN 'credit_balance_adjusted' THEN 'taken from the credit'
               WHEN 'credit_deficit_charged' THEN 'charged as a deficit'
               ELSE 'absorbed'
           END,
           0, abs(e.amount)
    FROM ledger_entries e
    WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = ANY ($3::uuid[])
      AND e.source_refund_id IS NOT NULL AND e.discarded_at IS NULL
    UNION ALL
    -- What a refund takes back of a settlement names the settlement; the refund is its cause.
    SELECT r.subscription_id, r.id, r.currency, 'taken back of what the credit settled',
           CASE WHEN r.status = 'failed' THEN 0 ELSE r.reversed_amount END,
           coalesce((
               SELECT sum(-e.amount) FROM ledger_entries e
               WHERE e.tenant_id = $1 AND e.livemode = $2
                 AND e.subscription_id = r.subscription_id
                 AND e.ledger_transaction_id = r.ledger_transaction_id
                 AND e.entry_type = 'credit_application_reversed' AND e.discarded_at IS NULL
           ), 0)
    FROM refunds r
    WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.subscription_id = ANY ($3::uuid[])
)
SELECT subscription_id, id AS refund_id, currency, sum(expected_amount) AS expected_amount,
       sum(actual_amount) AS actual_amount,
       format('the refund and its entries differ in what is %s', name) AS problem
FROM parts
GROUP BY subscription_id, id, currency, name
HAVING sum(expected_amount) <> sum(actual_amount)
