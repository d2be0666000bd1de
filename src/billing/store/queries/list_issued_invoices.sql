-- The invoices of a billing period, the newest first: the additional ones of its recalculations, then
-- the one of its billing. What is left of each is its amount less what credit notes and voids took
-- back. All documents are delivered when this is asked.
WITH documents AS (
    SELECT d.id, d.kind, d.amount, d.invoice_id, d.document_id
    FROM recalculations r
    JOIN recalculation_documents d
      ON d.tenant_id = $1 AND d.livemode = $2 AND d.recalculation_id = r.id
    JOIN billing_periods p
      ON p.tenant_id = $1 AND p.livemode = $2 AND p.id = $3
    WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.subscription_id = p.subscription_id
      AND r.billing_period_id = p.id
), invoices AS (
    SELECT document_id AS invoice_id, amount, true AS is_additional, id FROM documents
    WHERE kind = 'invoice'
    UNION ALL
    SELECT p.invoice_id,
           p.total_amount - coalesce((SELECT sum(amount) FROM documents), 0)::bigint, false, NULL
    FROM billing_periods p
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.id = $3 AND p.invoice_id IS NOT NULL
)
SELECT i.invoice_id, i.amount,
       (i.amount + coalesce((
           SELECT sum(d.amount) FROM documents d
           WHERE d.kind <> 'invoice' AND d.invoice_id = i.invoice_id
       ), 0))::bigint AS left_amount,
       i.is_additional,
       EXISTS (
           SELECT FROM billing_periods p
           JOIN payments t
             ON t.tenant_id = $1 AND t.livemode = $2 AND t.subscription_id = p.subscription_id
           WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.id = $3
             AND t.billing_period_id = p.id AND t.invoice_id = i.invoice_id
             AND t.status = 'succeeded'
       ) AS is_paid
FROM invoices i
ORDER BY i.id DESC NULLS LAST
