-- The components of a subscription's current billing period in their order, with their usage and
-- what credits paid of it so far.
SELECT c.usage_meter_id, um.name AS usage_meter_name, c.id AS component_id,
       coalesce(m.quantity, 0) AS quantity, coalesce(m.rated_amount, 0)::bigint AS rated_amount,
       coalesce(credited.amount, 0)::bigint AS credits_applied_amount
FROM billing_periods p
JOIN components c
  ON c.tenant_id = $1 AND c.livemode = $2 AND c.plan_version_id = p.plan_version_id
JOIN usage_meters um ON um.tenant_id = $1 AND um.livemode = $2 AND um.id = c.usage_meter_id
LEFT JOIN subscription_usage_meters m
  ON m.tenant_id = $1 AND m.livemode = $2 AND m.billing_period_id = p.id
 AND m.component_id = c.id
LEFT JOIN LATERAL (
    SELECT sum(a.amount_applied - coalesce((
               SELECT sum(-r.amount) FROM ledger_entries r
               WHERE r.tenant_id = $1 AND r.livemode = $2
                 AND r.source_credit_application_id = a.id
                 AND r.entry_type = 'credit_application_reversed' AND r.status = 'posted'
           ), 0)) AS amount
    FROM usage_credit_applications a
    JOIN ledger_entries e
      ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = a.subscription_id
     AND e.ledger_transaction_id = a.ledger_transaction_id AND e.id = a.id
    WHERE a.tenant_id = $1 AND a.livemode = $2 AND a.billing_period_id = p.id
      AND a.component_id = c.id AND a.kind <> 'settlement' AND e.status = 'posted'
) AS credited ON true
WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.id = $3
ORDER BY c.position
