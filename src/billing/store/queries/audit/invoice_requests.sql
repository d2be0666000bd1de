-- A closed period with charges has the request for its invoice, in its currency, and when it is
-- invoiced the invoice's id. With what its recalculations asked for since, it is the period's total.
SELECT p.subscription_id, p.id AS billing_period_id, s.currency,
       p.total_amount AS expected_amount, found.actual_amount, found.problem
FROM billing_periods p
JOIN subscriptions s ON s.tenant_id = $1 AND s.livemode = $2 AND s.id = p.subscription_id
LEFT JOIN invoice_requests r
  ON r.tenant_id = $1 AND r.livemode = $2 AND r.billing_period_id = p.id
LEFT JOIN LATERAL (
    SELECT (r.request ->> 'total_minor')::numeric AS total_amount,
           (r.request ->> 'total_minor')::numeric + coalesce((
               SELECT sum(d.amount)
               FROM recalculations n
               JOIN recalculation_documents d
                 ON d.tenant_id = $1 AND d.livemode = $2 AND d.recalculation_id = n.id
               WHERE n.tenant_id = $1 AND n.livemode = $2
                 AND n.subscription_id = p.subscription_id AND n.billing_period_id = p.id
           ), 0) AS asked_amount,
           r.request ->> 'currency' AS currency,
           (
               SELECT coalesce(sum((line ->> 'amount_minor')::numeric), 0)
               FROM jsonb_array_elements(r.request -> 'line_items') AS line
           ) AS lines_amount
) AS asked ON r.billing_period_id IS NOT NULL
CROSS JOIN LATERAL (
    SELECT CASE WHEN asked.asked_amount <> p.total_amount THEN asked.asked_amount
                WHEN asked.lines_amount <> asked.total_amount THEN asked.lines_amount
           END AS actual_amount,
           CASE
               WHEN r.billing_period_id IS NULL AND p.status = 'billed'
                   THEN 'the period is billed, and there is no request for its invoice'
               WHEN r.billing_period_id IS NULL AND EXISTS (
                   SELECT FROM charges c
                   WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.subscription_id = p.subscription_id
                     AND c.billing_period_id = p.id
               ) THEN 'the period has charges, and there is no request for its invoice'
               WHEN r.billing_period_id IS NULL AND p.invoice_id IS NOT NULL
                   THEN 'the period has an invoice that was never asked for'
               WHEN p.status = 'invoiced' AND r.billing_period_id IS NOT NULL AND p.invoice_id IS NULL
                   THEN 'the period is invoiced, and names no invoice'
               WHEN asked.asked_amount <> p.total_amount
                   THEN 'what is asked to be invoiced is not the total of the period'
               WHEN asked.lines_amount <> asked.total_amount
                   THEN 'the lines of the invoice that is asked for are not its total'
               WHEN asked.currency <> s.currency
                   THEN 'the invoice is asked for in another currency than the subscription''s'
           END AS problem
) AS found
WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = ANY ($3::uuid[])
  AND p.status <> 'open' AND found.problem IS NOT NULL
