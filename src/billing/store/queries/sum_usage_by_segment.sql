-- The cost of divided periods' usage by component and segment, by the events' own time, with their
-- corrections: also what waits for a recalculation of a billed period, or was taken in by one.
-- No entry of a period was made before the period itself, and ids tell their time: from the
-- earliest id on, older entries of the subscription are not read. Looked up one by one, whatever
-- the planner knows of the tables: it must not read a tenant's ledger.
SELECT w.billing_period_id, m.component_id,
       width_bucket(u.event_timestamp, w.cuts) AS segment, sum(-e.amount)::bigint AS amount
FROM (
    SELECT subscription_id, billing_period_id, earliest_id, cuts::timestamptz[] AS cuts
    FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::text[])
        AS divided (subscription_id, billing_period_id, earliest_id, cuts)
) AS w
CROSS JOIN LATERAL (
    SELECT own.source_usage_event_id, own.amount FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = w.subscription_id
      AND own.ledger_transaction_id >= w.earliest_id
      AND own.billing_period_id = w.billing_period_id
      AND own.entry_type IN ('usage_cost', 'usage_cost_corrected')
    OFFSET 0
) AS e
CROSS JOIN LATERAL (
    SELECT event.event_timestamp, event.subscription_usage_meter_id FROM usage_events event
    WHERE event.tenant_id = $1 AND event.livemode = $2 AND event.id = e.source_usage_event_id
    LIMIT 1
) AS u
CROSS JOIN LATERAL (
    SELECT own.component_id FROM subscription_usage_meters own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.id = u.subscription_usage_meter_id
    LIMIT 1
) AS m
GROUP BY w.billing_period_id, m.component_id, segment
