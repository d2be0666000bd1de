-- The cost of a usage event, and of its corrections, is posted for the subscription, period and meter that the event was
-- counted in. An event without its entry shows in the count of usage_aggregates.
SELECT e.subscription_id, e.billing_period_id, e.id AS ledger_entry_id,
       e.source_usage_event_id AS usage_event_id, e.currency, e.amount AS actual_amount,
       CASE WHEN u.id IS NULL THEN 'an entry whose usage event does not exist'
            WHEN m.subscription_id <> e.subscription_id OR u.subscription_id <> e.subscription_id
                THEN 'an entry for another subscription than its usage event''s'
            WHEN m.billing_period_id <> e.billing_period_id
                THEN 'an entry for another period than its usage event was counted in'
            ELSE 'an entry for another meter than its usage event''s'
       END AS problem
FROM ledger_entries e
LEFT JOIN usage_events u
  ON u.tenant_id = $1 AND u.livemode = $2 AND u.id = e.source_usage_event_id
LEFT JOIN subscription_usage_meters m
  ON m.tenant_id = $1 AND m.livemode = $2 AND m.id = u.subscription_usage_meter_id
WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = ANY ($3::uuid[])
  AND e.source_usage_event_id IS NOT NULL
  AND (u.subscription_id, m.subscription_id, m.billing_period_id, m.usage_meter_id)
      IS DISTINCT FROM
      (e.subscription_id, e.subscription_id, e.billing_period_id, e.usage_meter_id)
