-- Changes values of locked credits. A check of the table refuses one below zero.
UPDATE usage_credit_balances b
SET remaining_amount = b.remaining_amount + u.remaining_change,
    held_amount = b.held_amount + u.held_change,
    status = u.status,
    voided_at = u.voided_at,
    expired_at = u.expired_at,
    updated_at = $3
FROM unnest(
    $4::uuid[], $5::bigint[], $6::bigint[], $7::text[], $8::timestamptz[], $9::timestamptz[]
) AS u (usage_credit_id, remaining_change, held_change, status, voided_at, expired_at)
WHERE b.tenant_id = $1 AND b.livemode = $2 AND b.usage_credit_id = u.usage_credit_id
