-- What must hold whoever writes: history does not change, and an entry moves value only between the
-- accounts that its type names.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: its rows are facts and never change', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

DO $$
DECLARE
    facts text;
BEGIN
    FOREACH facts IN ARRAY ARRAY[
        'idempotent_requests', 'usage_meters', 'plans', 'plan_versions', 'components',
        'ledger_accounts', 'ledger_transactions', 'usage_events', 'charges', 'invoice_requests'
    ] LOOP
        EXECUTE format(
            'CREATE TRIGGER facts_never_change BEFORE UPDATE OR DELETE ON %I'
            ' FOR EACH ROW EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
    FOREACH facts IN ARRAY ARRAY[
        'idempotent_requests', 'usage_meters', 'plans', 'plan_versions', 'components',
        'ledger_accounts', 'ledger_transactions', 'usage_events', 'charges', 'invoice_requests',
        'ledger_entries', 'calculations', 'billing_periods', 'billing_runs', 'billing_run_results',
        'subscriptions', 'subscription_usage_meters', 'tenants'
    ] LOOP
        EXECUTE format(
            'CREATE TRIGGER never_truncated BEFORE TRUNCATE ON %I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', facts);
    END LOOP;
END $$;

CREATE TRIGGER entries_are_never_deleted BEFORE DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

-- A pending entry may be posted or discarded, once; nothing else about an entry ever changes.
CREATE FUNCTION guard_ledger_entry_update() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'posted' THEN
        RAISE EXCEPTION 'ledger entry % is posted and never changes', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.discarded_at IS NOT NULL THEN
        RAISE EXCEPTION 'ledger entry % is discarded and never changes', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF to_jsonb(NEW) - ARRAY['status', 'posted_at', 'discarded_at']
        IS DISTINCT FROM to_jsonb(OLD) - ARRAY['status', 'posted_at', 'discarded_at'] THEN
        RAISE EXCEPTION 'of ledger entry % only the status may change', OLD.id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER entries_are_posted_or_discarded_once BEFORE UPDATE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION guard_ledger_entry_update();

-- The accounts of new entries, a statement's rows at once: they exist, have the entry's currency,
-- belong to its subscription, and are of the kinds that the entry type and the sign ask for. A
-- foreign key would cost more a row, prove less, and lock the tenant's one revenue account.
CREATE FUNCTION check_ledger_entry_accounts() RETURNS trigger LANGUAGE plpgsql AS $$
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
       OR (
           e.entry_type,
           CASE WHEN e.amount <= 0 THEN d.kind ELSE c.kind END,
           CASE WHEN e.amount <= 0 THEN c.kind ELSE d.kind END
       ) NOT IN (
           ('usage_cost', 'receivable', 'usage_revenue'),
           ('charge_billed', 'receivable', 'subscription_revenue')
       )
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'ledger entry % of type % cannot debit % and credit %',
            wrong.id, wrong.entry_type, coalesce(wrong.debit_kind, 'an unknown account'),
            coalesce(wrong.credit_kind, 'an unknown account')
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER entries_fit_their_accounts AFTER INSERT ON ledger_entries
    REFERENCING NEW TABLE AS new_entries
    FOR EACH STATEMENT EXECUTE FUNCTION check_ledger_entry_accounts();
