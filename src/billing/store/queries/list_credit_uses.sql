-- What credits pay of a billing period, or of one component of it, as one execution finds it: each
-- credit's sums, and its first applications. Executions are numbered: 0 is the billing run with all
-- that came before it, then the recalculations in order, by their runs and ledger transactions.
-- Payments of the period are no credits.
WITH applied AS (
    SELECT a.*, coalesce(array_position($5::uuid[], a.calculation_run_id), 0) AS number
    FROM usage_credit_applications a
    CROSS JOIN LATERAL (
        SELECT own.status FROM ledger_entries own
        WHERE own.tenant_id = $1 AND own.livemode = $2 AND own.subscription_id = a.subscription_id
          AND own.ledger_transaction_id = a.ledger_transaction_id AND own.id = a.id
          AND own.status = 'posted'
        LIMIT 1
    ) AS e
    WHERE a.tenant_id = $1 AND a.livemode = $2 AND a.billing_period_id = $3
      AND a.kind <> 'settlement' AND ($4::uuid IS NULL OR a.component_id = $4)
), used AS (
    SELECT applied.*, CASE WHEN number = $7 THEN amount_applied ELSE 0 END AS applied_amount,
           r.reversed_amount, r.reversed_since_amount
    FROM applied
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(-own.amount) FILTER (WHERE own.number = $7), 0) AS reversed_amount,
               coalesce(sum(-own.amount) FILTER (WHERE own.number > $7), 0)
                   AS reversed_since_amount
        FROM (
            SELECT entry.amount,
                   coalesce(array_position($6::uuid[], entry.ledger_transaction_id), 0) AS number
            FROM ledger_entries entry
            WHERE entry.tenant_id = $1 AND entry.livemode = $2
              AND entry.source_credit_application_id = applied.id
              AND entry.entry_type = 'credit_application_reversed' AND entry.status = 'posted'
        ) AS own
    ) AS r
), ranked AS (
    SELECT used.*, row_number() OVER (PARTITION BY usage_credit_id ORDER BY id) AS place,
           count(*) OVER whole AS application_count,
           sum(applied_amount) OVER whole AS credit_applied_amount,
           sum(reversed_amount) OVER whole AS credit_reversed_amount,
           sum(reversed_since_amount) OVER whole AS credit_reversed_since_amount
    FROM used
    WHERE applied_amount > 0 OR reversed_amount > 0
    WINDOW whole AS (PARTITION BY usage_credit_id)
)
SELECT ranked.id, ranked.kind, ranked.component_id, ranked.usage_from, ranked.usage_until,
       ranked.applied_amount::bigint, ranked.reversed_amount::bigint,
       ranked.reversed_since_amount::bigint, ranked.applied_at, ranked.ledger_transaction_id,
       ranked.usage_credit_id, ranked.application_count,
       ranked.credit_applied_amount::bigint, ranked.credit_reversed_amount::bigint,
       ranked.credit_reversed_since_amount::bigint,
       k.credit_type, k.source_reference_id, k.expires_at
FROM ranked
JOIN usage_credits k
  ON k.tenant_id = $1 AND k.livemode = $2 AND k.id = ranked.usage_credit_id
WHERE ranked.place <= $8
ORDER BY ranked.usage_credit_id, ranked.id
