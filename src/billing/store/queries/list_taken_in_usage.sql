-- A page of what one recalculation took in of one component, in the order it came: events that were
-- held, and corrections. Their pending entries were discarded with it: at its moment.
WITH taken_in AS (
    SELECT e.ledger_transaction_id, e.id AS ledger_entry_id, -e.amount AS cost, v.id,
           v.quantity AS quantity, v.quantity AS quantity_change, v.idempotency_key,
           v.event_timestamp, NULL::uuid AS usage_event_id, NULL::text AS correction_type,
           NULL::numeric AS quantity_before, NULL::text AS reason, NULL::timestamptz AS corrected_at
    FROM usage_events v
    CROSS JOIN LATERAL (
        SELECT own.ledger_transaction_id, own.id, own.amount FROM ledger_entries own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.source_usage_event_id = v.id
          AND own.entry_type = 'usage_cost' AND own.discarded_at = $6
        LIMIT 1
    ) AS e
    WHERE v.tenant_id = $1 AND v.livemode = $2 AND v.subscription_usage_meter_id = $5
      AND v.disposition = 'held'
    UNION ALL
    SELECT e.ledger_transaction_id, e.id, -e.amount, c.id, c.quantity_after,
           c.quantity_after - c.quantity_before, NULL, NULL, c.usage_event_id, c.correction_type,
           c.quantity_before, c.reason, c.corrected_at
    FROM usage_event_corrections c
    CROSS JOIN LATERAL (
        SELECT own.ledger_transaction_id, own.id, own.amount FROM ledger_entries own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = $3
          AND own.ledger_transaction_id = c.ledger_transaction_id AND own.id = c.id
          AND own.discarded_at = $6
        LIMIT 1
    ) AS e
    CROSS JOIN LATERAL (
        SELECT event.id FROM usage_events event
        WHERE event.tenant_id = $1 AND event.livemode = $2 AND event.id = c.usage_event_id
          AND event.subscription_usage_meter_id = $5
        LIMIT 1
    ) AS v
    WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.subscription_id = $3
      AND c.billing_period_id = $4
)
SELECT * FROM taken_in
WHERE (ledger_transaction_id, ledger_entry_id) > ($7, $8)
ORDER BY ledger_transaction_id, ledger_entry_id
LIMIT $9
