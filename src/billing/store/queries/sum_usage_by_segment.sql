-- The cost of divided periods' usage by component and segment, by the events' own time.
-- No entry of a period was made before the period itself, and ids tell their time: from the
-- earliest id on, older entries of the subscription are not read.
SELECT w.billing_period_id, m.component_id,
       width_bucket(u.event_timestamp, w.cuts) AS segment, sum(-e.amount)::bigint AS amount
FROM (
    SELECT subscription_id, billing_period_id, earliest_id, cuts::timestamptz[] AS cuts
    FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::text[])
        AS divided (subscription_id, billing_period_id, earliest_id, cuts)
) AS w
JOIN ledger_entries e
  ON e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = w.subscription_id
 AND e.ledger_transaction_id >= w.earliest_id AND e.billing_period_id = w.billing_period_id
 AND e.entry_type = 'usage_cost'
JOIN usage_events u
  ON u.tenant_id = $1 AND u.livemode = $2 AND u.id = e.source_usage_event_id
JOIN subscription_usage_meters m
  ON m.tenant_id = $1 AND m.livemode = $2 AND m.id = u.subscription_usage_meter_id
GROUP BY w.billing_period_id, m.component_id, segment
