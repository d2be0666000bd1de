-- The running figures of a component in a period are the sums of its events and their corrections,
-- and of what the ledger holds for them. Of a billed period, what waits for a recalculation stands
-- apart: its entries are pending, and discarded once it is taken in. Events are found through their
-- entries.
WITH entries AS MATERIALIZED (
    SELECT id, entry_type, source_usage_event_id, billing_period_id, usage_meter_id, amount,
           status = 'posted' AS is_posted, status = 'pending' AND discarded_at IS NULL AS is_waiting
    FROM ledger_entries
    WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
      AND entry_type IN ('usage_cost', 'usage_cost_corrected', 'billing_adjustment')
), counted AS (
    SELECT u.subscription_usage_meter_id AS id, e.is_waiting, e.is_posted, e.amount,
           (e.entry_type = 'usage_cost')::integer AS event_count,
           CASE e.entry_type WHEN 'usage_cost' THEN u.quantity
                ELSE c.quantity_after - c.quantity_before END AS quantity
    FROM entries e
    JOIN usage_events u
      ON u.tenant_id = $1 AND u.livemode = $2 AND u.id = e.source_usage_event_id
    -- A correction's entry has its id.
    LEFT JOIN usage_event_corrections c
      ON c.tenant_id = $1 AND c.livemode = $2 AND c.id = e.id
     AND e.entry_type = 'usage_cost_corrected'
    WHERE e.entry_type <> 'billing_adjustment'
), expected AS (
    SELECT id,
           sum(event_count) FILTER (WHERE NOT is_waiting) AS events,
           sum(quantity) FILTER (WHERE NOT is_waiting) AS quantity,
           sum(-amount) FILTER (WHERE is_posted) AS rated,
           sum(event_count) FILTER (WHERE is_waiting) AS waiting_events,
           sum(quantity) FILTER (WHERE is_waiting) AS waiting_quantity,
           sum(-amount) FILTER (WHERE is_waiting) AS waiting
    FROM counted
    GROUP BY id
), adjusted AS (
    SELECT billing_period_id, usage_meter_id, sum(-amount) AS rated
    FROM entries
    WHERE entry_type = 'billing_adjustment' AND is_posted
    GROUP BY billing_period_id, usage_meter_id
), both_sides AS (
    SELECT m.id, 0 AS expected_events, 0 AS expected_quantity, 0 AS expected_rated,
           0 AS expected_waiting_events, 0 AS expected_waiting_quantity, 0 AS expected_waiting,
           m.event_count AS events, m.quantity, m.rated_amount AS rated,
           m.pending_event_count AS waiting_events, m.pending_quantity AS waiting_quantity,
           m.pending_amount AS waiting
    FROM billing_periods p
    JOIN subscription_usage_meters m
      ON m.tenant_id = $1 AND m.livemode = $2 AND m.billing_period_id = p.id
    WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = ANY ($3::uuid[])
    UNION ALL
    SELECT id, coalesce(events, 0), coalesce(quantity, 0), coalesce(rated, 0),
           coalesce(waiting_events, 0), coalesce(waiting_quantity, 0), coalesce(waiting, 0),
           0, 0, 0, 0, 0, 0
    FROM expected
    UNION ALL
    SELECT m.id, 0, 0, adjusted.rated, 0, 0, 0, 0, 0, 0, 0, 0, 0
    FROM adjusted
    JOIN subscription_usage_meters m
      ON m.tenant_id = $1 AND m.livemode = $2 AND m.billing_period_id = adjusted.billing_period_id
     AND m.usage_meter_id = adjusted.usage_meter_id
), summed AS (
    SELECT id, sum(expected_events) AS expected_events, sum(events) AS events,
           sum(expected_quantity) AS expected_quantity, sum(quantity) AS quantity,
           sum(expected_rated) AS expected_rated, sum(rated) AS rated,
           sum(expected_waiting_events) AS expected_waiting_events,
           sum(waiting_events) AS waiting_events,
           sum(expected_waiting_quantity) AS expected_waiting_quantity,
           sum(waiting_quantity) AS waiting_quantity,
           sum(expected_waiting) AS expected_waiting, sum(waiting) AS waiting
    FROM both_sides
    GROUP BY id
)
SELECT m.subscription_id, m.billing_period_id, m.id AS subscription_usage_meter_id,
       m.component_id, part.expected_quantity, part.actual_quantity, part.expected_amount,
       part.actual_amount, part.problem
FROM summed s
JOIN subscription_usage_meters m ON m.tenant_id = $1 AND m.livemode = $2 AND m.id = s.id
CROSS JOIN LATERAL (VALUES
    (s.expected_events, s.events, NULL, NULL,
     'the count of events is not the count of events in the ledger'),
    (s.expected_quantity, s.quantity, NULL, NULL,
     'the quantity is not the sum of the events'),
    (NULL, NULL, s.expected_rated, s.rated,
     'the rated amount is not what the ledger holds for the events'),
    (s.expected_waiting_events, s.waiting_events, NULL, NULL,
     'the count of held events is not the count of pending events in the ledger'),
    (s.expected_waiting_quantity, s.waiting_quantity, NULL, NULL,
     'the pending quantity is not the sum of held events and corrections'),
    (NULL, NULL, s.expected_waiting, s.waiting,
     'the pending amount is not what pending entries hold for events and corrections')
) AS part (expected_quantity, actual_quantity, expected_amount, actual_amount, problem)
WHERE part.expected_quantity <> part.actual_quantity
   OR part.expected_amount <> part.actual_amount
