-- What applications still pay of billing periods, as far as it matters: by what they pay and its
-- bounds, less what was reversed since, without those whose entries were discarded. An
-- application's entry has its id. Looked up period by period and application by application,
-- whatever the planner knows of the tables: it must not read a tenant's ledger.
SELECT p.id AS billing_period_id, a.kind, a.component_id, a.usage_from, a.usage_until,
       e.status = 'pending' AS is_pending,
       sum(a.amount_applied - a.reversed_amount)::bigint AS amount
FROM unnest($3::uuid[]) AS p (id)
CROSS JOIN LATERAL (
    SELECT *, coalesce((
               SELECT sum(-r.amount) FROM ledger_entries r
               WHERE r.tenant_id = $1 AND r.livemode = $2
                 AND r.source_credit_application_id = own.id
                 AND r.entry_type = 'credit_application_reversed' AND r.status = 'posted'
           ), 0) AS reversed_amount
    FROM usage_credit_applications own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.billing_period_id = p.id
    OFFSET 0
) AS a
CROSS JOIN LATERAL (
    SELECT status FROM ledger_entries own
    WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = a.subscription_id
      AND own.ledger_transaction_id = a.ledger_transaction_id AND own.id = a.id
      AND own.discarded_at IS NULL
    LIMIT 1
) AS e
GROUP BY p.id, a.kind, a.component_id, a.usage_from, a.usage_until, e.status
