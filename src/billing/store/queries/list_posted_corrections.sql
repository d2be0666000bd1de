-- The corrections of events that are posted, oldest first: made while the period was open.
SELECT c.id, c.usage_event_id, c.correction_type, c.quantity_before,
       c.quantity_after AS quantity, -e.amount AS cost, c.reason, c.ledger_transaction_id, c.corrected_at
FROM usage_event_corrections c
CROSS JOIN LATERAL (
    SELECT own.amount FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = c.subscription_id
      AND own.ledger_transaction_id = c.ledger_transaction_id AND own.id = c.id
      AND own.status = 'posted'
    LIMIT 1
) AS e
WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.usage_event_id = ANY ($3::uuid[])
ORDER BY c.id
