-- The entries of a billed period's usage that wait for a recalculation: of late events that are
-- held, and of corrections. Looked up by what is few: a subscription's entries are many.
SELECT e.subscription_id, e.ledger_transaction_id, e.id
FROM subscription_usage_meters m
JOIN usage_events v
  ON v.tenant_id = $1 AND v.livemode = $2 AND v.subscription_usage_meter_id = m.id
 AND v.disposition = 'held'
CROSS JOIN LATERAL (
    SELECT own.subscription_id, own.ledger_transaction_id, own.id FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.source_usage_event_id = v.id
      AND own.entry_type = 'usage_cost' AND own.status = 'pending' AND own.discarded_at IS NULL
    LIMIT 1
) AS e
WHERE m.tenant_id = $1 AND m.livemode = $2 AND m.subscription_id = $3
  AND m.billing_period_id = $4
UNION ALL
SELECT e.subscription_id, e.ledger_transaction_id, e.id
FROM usage_event_corrections c
CROSS JOIN LATERAL (
    SELECT own.subscription_id, own.ledger_transaction_id, own.id FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = c.subscription_id
      AND own.ledger_transaction_id = c.ledger_transaction_id AND own.id = c.id
      AND own.status = 'pending' AND own.discarded_at IS NULL
    LIMIT 1
) AS e
WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.subscription_id = $3
  AND c.billing_period_id = $4
