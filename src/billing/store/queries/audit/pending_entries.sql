-- What is pending waits for an operation that goes on: a refund until it is confirmed or fails; held
-- usage and corrections of a billed period until it is recalculated; an estimate until it is
-- overtaken.
SELECT e.subscription_id, e.billing_period_id, e.id AS ledger_entry_id, e.ledger_transaction_id,
       r.id AS refund_id, e.currency, e.amount AS actual_amount,
       CASE WHEN r.id IS NOT NULL
                THEN format('a pending entry of a refund that has %s', r.status)
            WHEN t.initiating_source_type = 'estimate'
                THEN 'a pending entry of an estimate that was overtaken'
            WHEN e.entry_type IN ('usage_cost', 'usage_cost_corrected')
                THEN 'a pending entry of usage in a period that is not billed'
            ELSE 'a pending entry that nothing will post or discard'
       END AS problem
FROM ledger_entries e
JOIN ledger_transactions t
  ON t.tenant_id = $1 AND t.livemode = $2 AND t.id = e.ledger_transaction_id
LEFT JOIN refunds r
  ON r.tenant_id = $1 AND r.livemode = $2 AND r.id = t.initiating_source_id
 AND t.initiating_source_type = 'refund'
LEFT JOIN billing_periods p
  ON p.tenant_id = $1 AND p.livemode = $2 AND p.id = e.billing_period_id
WHERE e.tenant_id = $1 AND e.livemode = $2 AND e.subscription_id = ANY ($3::uuid[])
  AND e.status = 'pending' AND e.discarded_at IS NULL
  AND CASE
      WHEN t.initiating_source_type = 'refund' THEN r.status IS DISTINCT FROM 'pending'
      WHEN t.initiating_source_type = 'estimate' THEN NOT EXISTS (
          SELECT FROM calculations c
          WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.subscription_id = e.subscription_id
            AND c.calculation_run_id = e.calculation_run_id
            AND c.status = 'pending_confirmation'
      )
      WHEN e.entry_type IN ('usage_cost', 'usage_cost_corrected')
          THEN p.status IS NULL OR p.status = 'open'
      ELSE true
  END
