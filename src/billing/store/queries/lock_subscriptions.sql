-- Locks subscriptions in the one global order; references to them stay possible.
SELECT *
FROM subscriptions
WHERE tenant_id = $1 AND livemode = $2 AND id = ANY ($3::uuid[])
ORDER BY id
FOR NO KEY UPDATE
