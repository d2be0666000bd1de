-- Writes the outcomes of pending results, and returns those written: another worker may have brought
-- some of them already. What posting wrote stays where delivery has nothing new.
UPDATE billing_run_results r
SET status = u.status,
    total_amount = coalesce(u.total_amount, r.total_amount),
    invoice_id = u.invoice_id,
    calculation_run_id = coalesce(u.calculation_run_id, r.calculation_run_id),
    error_reason = u.error_reason,
    error_message = u.error_message,
    completed_at = CASE WHEN u.status <> 'pending' THEN $4::timestamptz END
FROM unnest(
    $5::uuid[], $6::text[], $7::bigint[], $8::text[], $9::uuid[], $10::text[], $11::text[]
) AS u (
    id, status, total_amount, invoice_id, calculation_run_id, error_reason, error_message
)
WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.billing_run_id = $3 AND r.id = u.id
  AND r.status = 'pending'
RETURNING r.status
