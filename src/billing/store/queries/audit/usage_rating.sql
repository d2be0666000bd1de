-- What was rated so far is what the quantity costs by the component's price, rounded half-up; and with
-- what waits for a recalculation, what both quantities cost.
SELECT m.subscription_id, m.billing_period_id, m.id AS subscription_usage_meter_id,
       m.component_id, part.expected_amount, part.actual_amount, part.problem
FROM billing_periods p
JOIN subscription_usage_meters m
  ON m.tenant_id = $1 AND m.livemode = $2 AND m.billing_period_id = p.id
JOIN components c ON c.tenant_id = $1 AND c.livemode = $2 AND c.id = m.component_id
CROSS JOIN LATERAL (VALUES
    (round(greatest(m.quantity - c.included_units, 0) * c.unit_price), m.rated_amount,
     'the rated amount is not what the quantity costs'),
    (round(greatest(m.quantity + m.pending_quantity - c.included_units, 0) * c.unit_price)
         - m.rated_amount,
     m.pending_amount, 'the pending amount is not what the pending quantity adds to the cost')
) AS part (expected_amount, actual_amount, problem)
WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = ANY ($3::uuid[])
  AND part.expected_amount <> part.actual_amount
