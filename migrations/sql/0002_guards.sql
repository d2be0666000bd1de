-- What must hold of credits, payments and refunds whoever writes.

DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY['usage_credit_applications', 'usage_credit_balance_adjustments'] LOOP
        EXECUTE format(
            'CREATE TRIGGER facts_never_change BEFORE UPDATE OR DELETE ON %I'
            ' FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
    FOREACH facts IN ARRAY ARRAY['usage_credits', 'usage_credit_balances', 'payments', 'refunds'] LOOP
        EXECUTE format(
            'CREATE TRIGGER facts_are_never_deleted BEFORE DELETE ON %I'
            ' FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
    FOREACH facts IN ARRAY ARRAY[
        'usage_credits', 'usage_credit_balances', 'usage_credit_applications',
        'usage_credit_balance_adjustments', 'payments', 'refunds'
    ] LOOP
        EXECUTE format(
            'CREATE TRIGGER never_truncated BEFORE TRUNCATE ON %I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
END $$;

-- Of a row, only the columns that the trigger names may change.
CREATE FUNCTION guard_core_columns() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - TG_ARGV IS DISTINCT FROM to_jsonb(OLD) - TG_ARGV THEN
        RAISE EXCEPTION 'of % only % may change', TG_TABLE_NAME, array_to_string(TG_ARGV, ', ')
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER core_never_changes BEFORE UPDATE ON usage_credits
    FOR EACH ROW EXECUTE FUNCTION guard_core_columns('notes', 'metadata', 'updated_at');
CREATE TRIGGER core_never_changes BEFORE UPDATE ON usage_credit_balances
    FOR EACH ROW EXECUTE FUNCTION guard_core_columns(
        'status', 'remaining_amount', 'held_amount', 'voided_at', 'expired_at', 'updated_at'
    );

CREATE FUNCTION guard_end_of_credit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.voided_at IS DISTINCT FROM coalesce(OLD.voided_at, NEW.voided_at)
        OR NEW.expired_at IS DISTINCT FROM coalesce(OLD.expired_at, NEW.expired_at) THEN
        RAISE EXCEPTION 'credit % has come to its end, for good', OLD.usage_credit_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER the_end_is_final BEFORE UPDATE ON usage_credit_balances
    FOR EACH ROW EXECUTE FUNCTION guard_end_of_credit();

CREATE TRIGGER core_never_changes BEFORE UPDATE ON payments
    FOR EACH ROW EXECUTE FUNCTION guard_core_columns(
        'status', 'processor_transaction_id', 'processed_at', 'failure_reason', 'usage_credit_id',
        'payment_method_details', 'invoice_id', 'updated_at'
    );
CREATE TRIGGER core_never_changes BEFORE UPDATE ON refunds
    FOR EACH ROW EXECUTE FUNCTION guard_core_columns(
        'status', 'refund_processed_at', 'gateway_refund_id', 'failure_reason',
        'clawed_back_amount', 'updated_at'
    );

CREATE FUNCTION guard_terminal_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status <> 'pending' THEN
        RAISE EXCEPTION '% of % is % and never changes', OLD.id, TG_TABLE_NAME, OLD.status
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER a_terminal_status_is_final BEFORE UPDATE ON payments
    FOR EACH ROW EXECUTE FUNCTION guard_terminal_status();
CREATE TRIGGER a_terminal_status_is_final BEFORE UPDATE ON refunds
    FOR EACH ROW EXECUTE FUNCTION guard_terminal_status();

-- The refunds of a payment are never more than the payment, whoever writes them at the same time:
-- each new one waits for the payment's row.
CREATE FUNCTION check_refunds_of_payment() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    paid bigint;
    refunded bigint;
BEGIN
    SELECT amount INTO paid FROM public.payments
    WHERE tenant_id = NEW.tenant_id AND livemode = NEW.livemode AND id = NEW.payment_id
      AND status = 'succeeded' AND currency = NEW.currency
    FOR NO KEY UPDATE;
    IF paid IS NULL THEN
        RAISE EXCEPTION 'refund % is not of a confirmed payment in its currency', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    SELECT coalesce(sum(amount), 0) INTO refunded FROM public.refunds
    WHERE tenant_id = NEW.tenant_id AND livemode = NEW.livemode AND payment_id = NEW.payment_id
      AND status <> 'failed';
    IF refunded > paid THEN
        RAISE EXCEPTION 'the refunds of payment % would be %, it is %', NEW.payment_id, refunded, paid
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER refunds_fit_their_payment AFTER INSERT ON refunds
    FOR EACH ROW EXECUTE FUNCTION check_refunds_of_payment();

-- As 0001 made it, with the accounts and sources of credits, payments and refunds: an entry moves
-- value only between the kinds of account that its type and sign ask for, all of its subscription
-- and currency, and its sources belong together.
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
           ('refund_absorbed', 1, 'refunds_and_allowances', 'refund_clearing')
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
    RETURN NULL;
END $$;
