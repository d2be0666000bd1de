-- A page of the events of one component in one billing period with what they cost, in the order
-- they were rated: those whose cost is posted. See sum_posted_usage.sql.
SELECT v.id, v.idempotency_key, v.event_timestamp, v.quantity, -e.amount AS cost,
       v.disposition <> 'rated' AS is_late, e.id AS ledger_entry_id, e.ledger_transaction_id
FROM (
    SELECT own.id, own.ledger_transaction_id, own.source_usage_event_id, own.amount
    FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = $3
      AND (own.ledger_transaction_id, own.id) > ($6, $7) AND own.ledger_transaction_id <= $8
      AND own.billing_period_id = $4 AND own.entry_type = 'usage_cost' AND own.status = 'posted'
    ORDER BY own.ledger_transaction_id, own.id
    OFFSET 0
) AS e
CROSS JOIN LATERAL (
    SELECT * FROM usage_events event
    WHERE event.tenant_id = $1 AND event.livemode = $2 AND event.id = e.source_usage_event_id
      AND event.subscription_usage_meter_id = $5
    LIMIT 1
) AS v
ORDER BY e.ledger_transaction_id, e.id
LIMIT $9
