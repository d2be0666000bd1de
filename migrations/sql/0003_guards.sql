-- What must hold of recalculations, corrections of usage and write-offs whoever writes.

DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY['usage_event_corrections', 'recalculations'] LOOP
        EXECUTE format(
            'CREATE TRIGGER facts_never_change BEFORE UPDATE OR DELETE ON %I'
            ' FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
    FOREACH facts IN ARRAY ARRAY['recalculation_documents', 'write_offs', 'calculations'] LOOP
        EXECUTE format(
            'CREATE TRIGGER facts_are_never_deleted BEFORE DELETE ON %I'
            ' FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
    FOREACH facts IN ARRAY ARRAY[
        'usage_event_corrections', 'recalculations', 'recalculation_documents', 'write_offs'
    ] LOOP
        EXECUTE format(
            'CREATE TRIGGER never_truncated BEFORE TRUNCATE ON %I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
END $$;

CREATE TRIGGER core_never_changes BEFORE UPDATE ON recalculation_documents
    FOR EACH ROW EXECUTE FUNCTION guard_core_columns('document_id', 'delivered_at', 'failure');
CREATE TRIGGER core_never_changes BEFORE UPDATE ON write_offs
    FOR EACH ROW EXECUTE FUNCTION guard_core_columns('recovered_amount', 'updated_at');

CREATE FUNCTION guard_recovery() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.recovered_amount < OLD.recovered_amount THEN
        RAISE EXCEPTION 'what was recovered of write-off % stays recovered', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER recoveries_stay BEFORE UPDATE ON write_offs
    FOR EACH ROW EXECUTE FUNCTION guard_recovery();

CREATE FUNCTION guard_delivered_document() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.delivered_at IS NOT NULL THEN
        RAISE EXCEPTION 'document % is delivered and never changes', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER the_delivery_is_final BEFORE UPDATE ON recalculation_documents
    FOR EACH ROW EXECUTE FUNCTION guard_delivered_document();

-- By the columns that a statement names: recording invoices costs nothing.
CREATE TRIGGER results_never_change BEFORE UPDATE OF
    tenant_id, livemode, id, calculation_run_id, billing_run_id, recalculation_id, subscription_id,
    billing_period_id, component_id, usage_meter_id, calculated_at, calculation_type, total_quantity,
    billable_quantity, unit_price, total_raw_usage_amount, credits_applied_amount,
    net_billed_amount, currency, notes
ON calculations FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- An estimate is superseded or discarded, an active calculation is superseded: once.
CREATE FUNCTION guard_calculation_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (OLD.status, NEW.status) NOT IN (
        ('pending_confirmation', 'superseded'), ('pending_confirmation', 'discarded'),
        ('active', 'superseded')
    ) THEN
        RAISE EXCEPTION 'calculation % is % and cannot become %', OLD.id, OLD.status, NEW.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER statuses_go_forward BEFORE UPDATE OF status, superseded_by_calculation_id
ON calculations FOR EACH ROW EXECUTE FUNCTION guard_calculation_status();

-- As 0002 made it, with corrections, billing adjustments and write-offs: an entry moves value only
-- between the kinds of account that its type and sign ask for, all of its subscription and currency,
-- and its sources belong together.
CREATE OR REPLACE FUNCTION check_ledger_entry_accounts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    SELECT e.id, e.entry_type, d.kind AS debit_kind, c.kind AS credit_kind INTO wrong
    FROM new_entries e
    -- By its full name: a temporary table of the session would be found first.
    LEFT JOIN public.ledger_accounts d
      ON d.tenant_id = e.tenant_id AND d.livemode = e.livemode AND d.id = e.debit_account_id
    LEFT JOIN public.ledger_accounts c
      ON c.tenant_id = e.tenant_id AND c.livemode = e.livemode AND c.id = e.credit_account_id
    WHERE d.id IS NULL
       OR c.id IS NULL
       OR d.currency <> e.currency
       OR c.currency <> e.currency
       OR coalesce(d.subscription_id, e.subscription_id) <> e.subscription_id
       OR coalesce(c.subscription_id, e.subscription_id) <> e.subscription_id
       OR (e.entry_type, CASE WHEN e.amount > 0 THEN 1 ELSE -1 END, d.kind, c.kind) NOT IN (
           ('usage_cost', -1, 'receivable', 'usage_revenue'),
           ('usage_cost_corrected', -1, 'receivable', 'usage_revenue'),
           ('usage_cost_corrected', 1, 'usage_revenue', 'receivable'),
           ('billing_adjustment', -1, 'receivable', 'usage_revenue'),
           ('billing_adjustment', 1, 'usage_revenue', 'receivable'),
           ('charge_billed', -1, 'receivable', 'subscription_revenue'),
           ('charge_billed', 1, 'subscription_revenue', 'receivable'),
           ('payment_recognized', 1, 'cash', 'credit'),
           ('credit_grant_recognized', 1, 'promotional_expense', 'credit'),
           ('surplus_credited', 1, 'receivable', 'credit'),
           ('credit_applied_to_usage', 1, 'credit', 'receivable'),
           ('credit_applied_to_charge', 1, 'credit', 'receivable'),
           ('credit_application_reversed', -1, 'receivable', 'credit'),
           ('credit_balance_adjusted', 1, 'promotional_expense', 'credit'),
           ('credit_balance_adjusted', -1, 'credit', 'refund_clearing'),
           ('credit_balance_adjusted', -1, 'credit', 'breakage'),
           ('credit_balance_adjusted', -1, 'credit', 'promotional_expense'),
           ('credit_deficit_charged', -1, 'receivable', 'refund_clearing'),
           ('credit_deficit_charged', -1, 'receivable', 'promotional_expense'),
           ('credit_grant_expired', -1, 'credit', 'breakage'),
           ('credit_grant_expired', -1, 'credit', 'promotional_expense'),
           ('payment_refunded', -1, 'refund_clearing', 'cash'),
           ('refund_absorbed', 1, 'refunds_and_allowances', 'refund_clearing'),
           ('receivable_written_off', 1, 'bad_debt', 'receivable'),
           ('receivable_written_off', -1, 'receivable', 'bad_debt')
       )
       -- The credit that moves is the one that is named: a credit's account has its id.
       OR (d.kind = 'credit' AND e.debit_account_id IS DISTINCT FROM e.source_usage_credit_id)
       OR (c.kind = 'credit' AND e.credit_account_id IS DISTINCT FROM e.source_usage_credit_id)
       OR (
           e.entry_type IN ('credit_balance_adjusted', 'credit_deficit_charged')
           AND (e.source_refund_id IS NOT NULL) <> (c.kind = 'refund_clearing')
       )
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'ledger entry % of type % cannot debit % and credit %',
            wrong.id, wrong.entry_type, coalesce(wrong.debit_kind, 'an unknown account'),
            coalesce(wrong.credit_kind, 'an unknown account')
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- Usage has a key of its own for its source, and is most of what is written.
    IF NOT EXISTS (SELECT FROM new_entries WHERE entry_type NOT IN ('usage_cost', 'charge_billed')) THEN
        RETURN NULL;
    END IF;
    SELECT e.id, e.entry_type INTO wrong
    FROM new_entries e
    LEFT JOIN public.usage_credits k
      ON k.tenant_id = e.tenant_id AND k.livemode = e.livemode
     AND k.subscription_id = e.subscription_id AND k.id = e.source_usage_credit_id
    LEFT JOIN public.usage_credit_applications a
      ON a.tenant_id = e.tenant_id AND a.livemode = e.livemode
     AND a.id = e.source_credit_application_id
    LEFT JOIN public.usage_credit_balance_adjustments j
      ON j.tenant_id = e.tenant_id AND j.livemode = e.livemode
     AND j.id = e.source_credit_balance_adjustment_id
    LEFT JOIN public.payments p
      ON p.tenant_id = e.tenant_id AND p.livemode = e.livemode
     AND p.subscription_id = e.subscription_id AND p.id = e.source_payment_id
    LEFT JOIN public.refunds r
      ON r.tenant_id = e.tenant_id AND r.livemode = e.livemode
     AND r.subscription_id = e.subscription_id AND r.id = e.source_refund_id
    LEFT JOIN public.billing_periods b
      ON b.tenant_id = e.tenant_id AND b.livemode = e.livemode
     AND b.subscription_id = e.subscription_id AND b.id = e.billing_period_id
    LEFT JOIN public.ledger_accounts c
      ON c.tenant_id = e.tenant_id AND c.livemode = e.livemode AND c.id = e.credit_account_id
    WHERE e.entry_type NOT IN ('usage_cost', 'charge_billed')
      AND (
          (e.source_usage_credit_id IS NOT NULL AND k.currency IS DISTINCT FROM e.currency)
          -- A credit begins with what it was issued with, of where it comes from.
          OR (
              e.entry_type IN ('credit_grant_recognized', 'payment_recognized', 'surplus_credited')
              AND (e.amount, e.entry_type) IS DISTINCT FROM (k.issued_amount, CASE
                  WHEN k.credit_type IN ('payment_top_up', 'payment_period_settlement')
                      THEN 'payment_recognized'
                  WHEN k.credit_type = 'surplus' THEN 'surplus_credited'
                  ELSE 'credit_grant_recognized'
              END)
          )
          OR (e.source_credit_application_id IS NOT NULL AND (
              (a.usage_credit_id, a.billing_period_id, a.currency)
                  IS DISTINCT FROM (e.source_usage_credit_id, e.billing_period_id, e.currency)
              OR a.usage_meter_id IS DISTINCT FROM e.usage_meter_id
              OR CASE WHEN e.amount > 0 THEN e.amount <> a.amount_applied
                      ELSE -e.amount > a.amount_applied END
          ))
          OR (e.source_credit_balance_adjustment_id IS NOT NULL AND (
              j.usage_credit_id IS DISTINCT FROM e.source_usage_credit_id
              OR j.source_refund_id IS DISTINCT FROM e.source_refund_id
              OR (j.direction = 'increase') <> (e.amount > 0)
              OR abs(e.amount) > j.amount_adjusted
          ))
          OR (e.source_payment_id IS NOT NULL AND p.id IS NULL)
          OR (e.entry_type = 'payment_recognized' AND e.amount <> p.amount)
          OR (e.source_refund_id IS NOT NULL AND r.id IS NULL)
          OR (
              e.entry_type = 'payment_refunded'
              AND (r.payment_id, r.amount) IS DISTINCT FROM (p.id, -e.amount)
          )
          OR (e.entry_type = 'refund_absorbed' AND e.amount > r.amount)
          OR (e.billing_period_id IS NOT NULL AND b.id IS NULL)
          -- What is left of paid value is breakage, of given value the expense taken back.
          OR (
              e.entry_type IN ('credit_balance_adjusted', 'credit_grant_expired')
              AND c.kind IN ('breakage', 'promotional_expense')
              AND (c.kind = 'breakage')
                  <> (k.credit_type IN ('payment_top_up', 'payment_period_settlement', 'surplus'))
          )
      )
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the sources of ledger entry % of type % do not belong together',
            wrong.id, wrong.entry_type
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    -- What corrections of billed periods and of usage have: rare, so that its look-ups are not made,
    -- and not planned, with the entries of every day.
    IF NOT EXISTS (
        SELECT FROM new_entries
        WHERE entry_type IN ('usage_cost_corrected', 'billing_adjustment', 'receivable_written_off')
    ) THEN
        RETURN NULL;
    END IF;
    SELECT e.id, e.entry_type INTO wrong
    FROM new_entries e
    LEFT JOIN LATERAL (
        SELECT * FROM public.usage_event_corrections own
        WHERE own.tenant_id = e.tenant_id AND own.livemode = e.livemode AND own.id = e.id
        LIMIT 1
    ) AS v ON true
    LEFT JOIN LATERAL (
        SELECT tally.subscription_id, tally.billing_period_id, tally.usage_meter_id
        FROM public.usage_events u
        JOIN public.subscription_usage_meters tally
          ON tally.tenant_id = u.tenant_id AND tally.livemode = u.livemode
         AND tally.id = u.subscription_usage_meter_id
        WHERE u.tenant_id = e.tenant_id AND u.livemode = e.livemode AND u.id = v.usage_event_id
        LIMIT 1
    ) AS m ON true
    LEFT JOIN LATERAL (
        SELECT * FROM public.calculations own
        WHERE own.tenant_id = e.tenant_id AND own.livemode = e.livemode
          AND own.id = e.source_billing_period_calculation_id
        LIMIT 1
    ) AS q ON true
    LEFT JOIN LATERAL (
        SELECT * FROM public.write_offs own
        WHERE own.tenant_id = e.tenant_id AND own.livemode = e.livemode
          AND own.id = e.source_write_off_id
        LIMIT 1
    ) AS w ON true
    WHERE e.entry_type IN ('usage_cost_corrected', 'billing_adjustment', 'receivable_written_off')
      AND (
          -- A correction's entry has its id, and is of the event's own subscription, period and meter.
          (
              e.entry_type = 'usage_cost_corrected'
              AND ((v.usage_event_id, v.subscription_id, v.billing_period_id, v.cost_change_amount,
                    v.currency)
                   IS DISTINCT FROM (e.source_usage_event_id, e.subscription_id,
                                     e.billing_period_id, -e.amount, e.currency)
                   OR (m.subscription_id, m.billing_period_id, m.usage_meter_id)
                   IS DISTINCT FROM (e.subscription_id, e.billing_period_id, e.usage_meter_id))
          )
          OR (
              e.source_billing_period_calculation_id IS NOT NULL
              AND (q.subscription_id, q.billing_period_id, q.usage_meter_id, q.currency,
                   q.calculation_run_id)
                  IS DISTINCT FROM (e.subscription_id, e.billing_period_id, e.usage_meter_id,
                                    e.currency, e.calculation_run_id)
          )
          -- It is what the calculation changes of the one that it replaces.
          OR (
              e.entry_type = 'billing_adjustment'
              AND (
                  q.calculation_type <> 'adjustment_recalculation'
                  OR -e.amount <> q.total_raw_usage_amount - coalesce((
                      SELECT replaced.total_raw_usage_amount FROM public.calculations replaced
                      WHERE replaced.tenant_id = e.tenant_id AND replaced.livemode = e.livemode
                        AND replaced.subscription_id = e.subscription_id
                        AND replaced.billing_period_id = e.billing_period_id
                        AND replaced.superseded_by_calculation_id = q.id
                        AND replaced.calculation_type <> 'interim_estimate'
                  ), 0)
              )
          )
          OR (e.source_write_off_id IS NOT NULL AND (
              (w.subscription_id, w.billing_period_id, w.currency)
                  IS DISTINCT FROM (e.subscription_id, e.billing_period_id, e.currency)
              OR CASE WHEN e.amount > 0 THEN e.amount <> w.amount ELSE -e.amount > w.amount END
          ))
      )
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the sources of ledger entry % of type % do not belong together',
            wrong.id, wrong.entry_type
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
