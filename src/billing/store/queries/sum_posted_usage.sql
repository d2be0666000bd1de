-- What the posted usage of one component in one billing period comes to: events, and corrections
-- that were made while the period was open. All was posted before the period was billed, so older
-- and newer ledger transactions of the subscription are not read. Looked up one by one, whatever the
-- planner knows of the tables: it must not read a tenant's ledger.
WITH events AS (
    SELECT count(*) AS count, coalesce(sum(v.quantity), 0) AS quantity,
           coalesce(sum(-e.amount), 0) AS cost
    FROM (
        SELECT own.source_usage_event_id, own.amount FROM ledger_entries own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = $3
          AND own.ledger_transaction_id BETWEEN $6 AND $7 AND own.billing_period_id = $4
          AND own.entry_type = 'usage_cost' AND own.status = 'posted'
        OFFSET 0
    ) AS e
    CROSS JOIN LATERAL (
        SELECT event.quantity FROM usage_events event
        WHERE event.tenant_id = $1 AND event.livemode = $2 AND event.id = e.source_usage_event_id
          AND event.subscription_usage_meter_id = $5
        LIMIT 1
    ) AS v
), corrections AS (
    SELECT count(*) AS count, coalesce(sum(c.quantity_after - c.quantity_before), 0) AS quantity,
           coalesce(sum(-e.amount), 0) AS cost
    FROM (
        SELECT * FROM usage_event_corrections own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = $3
          AND own.billing_period_id = $4
        OFFSET 0
    ) AS c
    CROSS JOIN LATERAL (
        SELECT own.amount FROM ledger_entries own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = $3
          AND own.ledger_transaction_id = c.ledger_transaction_id AND own.id = c.id
          AND own.status = 'posted'
        LIMIT 1
    ) AS e
    CROSS JOIN LATERAL (
        SELECT event.id FROM usage_events event
        WHERE event.tenant_id = $1 AND event.livemode = $2 AND event.id = c.usage_event_id
          AND event.subscription_usage_meter_id = $5
        LIMIT 1
    ) AS v
)
SELECT events.count, events.quantity, events.cost::bigint, corrections.count,
       corrections.quantity, corrections.cost::bigint
FROM events, corrections
