-- Frees the value that pending applications hold; their entries were discarded.
UPDATE usage_credit_balances b
SET remaining_amount = b.remaining_amount + u.amount,
    held_amount = b.held_amount - u.amount,
    updated_at = $3
FROM (
    SELECT usage_credit_id, sum(amount)::bigint AS amount
    FROM unnest($4::uuid[], $5::bigint[]) AS pending (usage_credit_id, amount)
    GROUP BY usage_credit_id
) AS u
WHERE b.tenant_id = $1 AND b.livemode = $2 AND b.usage_credit_id = u.usage_credit_id
