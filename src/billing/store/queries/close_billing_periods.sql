-- Closes billing periods with their totals and the running total of their subscriptions: the
-- snapshot that balances start from. Periods of one subscription close in order, one a statement.
UPDATE billing_periods p
SET status = CASE WHEN u.nothing_to_invoice THEN 'invoiced' ELSE 'billed' END,
    billed_at = $3,
    invoiced_at = CASE WHEN u.nothing_to_invoice THEN $3::timestamptz END,
    total_amount = u.total_amount,
    receivable_amount = u.receivable_amount,
    closing_receivable_amount = u.receivable_amount + coalesce(
        (
            SELECT earlier.closing_receivable_amount
            FROM billing_periods earlier
            WHERE earlier.tenant_id = $1 AND earlier.livemode = $2
              AND earlier.subscription_id = u.subscription_id
              AND earlier.period_start < u.period_start
            ORDER BY earlier.period_start DESC
            LIMIT 1
        ),
        0
    )
FROM unnest(
    $4::uuid[], $5::uuid[], $6::timestamptz[], $7::bigint[], $8::bigint[],
    $9::boolean[]
) AS u (
    id, subscription_id, period_start, total_amount, receivable_amount, nothing_to_invoice
)
WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.id = u.id
