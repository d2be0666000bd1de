-- What a subscription owed at a moment, by recorded time, from the entries posted by then.
SELECT coalesce(-sum(e.amount) FILTER (
           WHERE p.billed_at IS NULL OR p.billed_at > $4
       ), 0)::bigint AS unbilled,
       coalesce(-sum(e.amount) FILTER (
           WHERE p.billed_at <= $4 AND (p.invoiced_at IS NULL OR p.invoiced_at > $4)
       ), 0)::bigint AS billed_not_invoiced,
       coalesce(-sum(e.amount) FILTER (WHERE p.invoiced_at <= $4), 0)::bigint AS invoiced
FROM ledger_entries e
JOIN billing_periods p
  ON p.tenant_id = $1 AND p.livemode = $2 AND p.id = e.billing_period_id
WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = $3
  AND e.status = 'posted' AND e.posted_at <= $4
