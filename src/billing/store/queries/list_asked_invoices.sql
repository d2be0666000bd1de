-- The invoices of subscriptions, of billing and of recalculations, with what was asked for and what
-- was taken back of each by credit notes and voids that were delivered.
WITH documents AS MATERIALIZED (
    SELECT r.subscription_id, r.billing_period_id, d.kind, d.invoice_id, d.document_id, d.amount,
           d.currency
    FROM recalculations r
    JOIN recalculation_documents d
      ON d.tenant_id = $1 AND d.livemode = $2 AND d.recalculation_id = r.id
    WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.subscription_id = ANY ($3::uuid[])
      AND d.delivered_at IS NOT NULL
), invoices AS (
    SELECT p.subscription_id, p.id AS billing_period_id, p.invoice_id, q.request ->> 'currency'
               AS currency, (q.request ->> 'total_minor')::bigint AS total_amount
    FROM billing_periods p
    JOIN invoice_requests q
      ON q.tenant_id = $1 AND q.livemode = $2 AND q.billing_period_id = p.id
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = ANY ($3::uuid[])
      AND p.invoice_id IS NOT NULL
    UNION ALL
    SELECT subscription_id, billing_period_id, document_id, currency, amount
    FROM documents
    WHERE kind = 'invoice'
)
SELECT i.subscription_id, i.billing_period_id, i.invoice_id, i.currency, s.customer_id,
       i.total_amount, coalesce(taken.credited_amount, 0)::bigint AS credited_amount,
       coalesce(taken.is_voided, false) AS is_voided
FROM invoices i
JOIN subscriptions s ON s.tenant_id = $1 AND s.livemode = $2 AND s.id = i.subscription_id
LEFT JOIN (
    SELECT invoice_id, sum(-amount) FILTER (WHERE kind = 'credit_note') AS credited_amount,
           bool_or(kind = 'void') AS is_voided
    FROM documents
    WHERE kind <> 'invoice'
    GROUP BY invoice_id
) AS taken ON taken.invoice_id = i.invoice_id
ORDER BY i.billing_period_id, i.invoice_id
