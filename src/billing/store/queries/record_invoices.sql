-- Records the invoices of billed periods, also on their calculations. A period that has its
-- invoice already keeps it, and is not among those counted. The periods are named twice, so that no plan reads the calculations of
-- others: without statistics, or with those of other times, PostgreSQL expects next to none.
WITH invoiced AS (
    UPDATE billing_periods p
    SET status = 'invoiced', invoice_id = u.invoice_id, invoiced_at = $3
    FROM unnest($4::uuid[], $5::text[]) AS u (billing_period_id, invoice_id)
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.id = u.billing_period_id
      AND p.status = 'billed'
    RETURNING p.subscription_id, p.id, p.invoice_id
), noted AS (
    UPDATE calculations c
    SET source_invoice_id = invoiced.invoice_id
    FROM invoiced
    WHERE c.tenant_id = $1 AND c.livemode = $2
      AND c.subscription_id = invoiced.subscription_id
      AND c.billing_period_id = invoiced.id
      AND c.billing_period_id = ANY ($4::uuid[])
      AND c.status = 'active'
)
SELECT count(*) FROM invoiced
