-- What a subscription owes and has now: the snapshot at its last closed period, the running figures
-- of its open periods, and of its credits those of which something is left.
WITH open_usage AS (
    SELECT coalesce(sum(m.rated_amount), 0) AS amount
    FROM billing_periods p
    JOIN subscription_usage_meters m
      ON m.tenant_id = $1 AND m.livemode = $2 AND m.billing_period_id = p.id
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = $3 AND p.status = 'open'
), running AS (
    SELECT coalesce(sum(receivable_amount) FILTER (WHERE status = 'open'), 0) AS open_amount,
           coalesce(sum(receivable_amount) FILTER (WHERE status = 'billed'), 0)
               AS not_invoiced_amount
    FROM billing_periods
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = $3
      AND status IN ('open', 'billed')
), closed AS (
    SELECT coalesce((
        SELECT closing_receivable_amount
        FROM billing_periods
        WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = $3 AND status <> 'open'
        ORDER BY period_start DESC
        LIMIT 1
    ), 0) AS amount
), credit AS (
    SELECT coalesce(sum(b.remaining_amount + b.held_amount), 0) AS balance,
           coalesce(sum(b.remaining_amount) FILTER (
               WHERE (k.expires_at IS NULL OR k.expires_at > $4)
                 AND (k.billing_period_id IS NULL OR p.status = 'open')
           ), 0) AS available
    FROM usage_credit_balances b
    JOIN usage_credits k
      ON k.tenant_id = $1 AND k.livemode = $2 AND k.id = b.usage_credit_id
    LEFT JOIN billing_periods p
      ON p.tenant_id = $1 AND p.livemode = $2 AND p.id = k.billing_period_id
    WHERE b.tenant_id = $1 AND b.livemode = $2 AND b.subscription_id = $3
      AND (b.remaining_amount > 0 OR b.held_amount > 0)
)
SELECT (open_usage.amount + running.open_amount)::bigint AS unbilled,
       running.not_invoiced_amount::bigint AS billed_not_invoiced,
       (closed.amount - running.not_invoiced_amount)::bigint AS invoiced,
       credit.balance::bigint AS credit_balance,
       credit.available::bigint AS available_credit
FROM open_usage, running, closed, credit
