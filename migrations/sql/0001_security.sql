-- The application works as billing_app: it owns nothing, deletes nothing outside the queue, changes
-- only the columns that have a life, and sees one tenant's live or test data at a time.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'billing_app') THEN
        CREATE ROLE billing_app NOLOGIN;
    END IF;
EXCEPTION
    -- Roles belong to the whole server: another database of it may have made this one.
    WHEN duplicate_object OR unique_violation THEN NULL;
END $$;

DO $$
BEGIN
    -- Since PostgreSQL 16 the maker of a role is its member, but may not become it.
    IF NOT pg_has_role(
        current_user,
        'billing_app',
        CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END
    ) THEN
        EXECUTE format('GRANT billing_app TO %I', current_user);
    END IF;
END $$;

GRANT USAGE ON SCHEMA public TO billing_app;

GRANT SELECT, INSERT ON
    tenants, idempotent_requests, usage_meters, plans, plan_versions, components, ledger_accounts,
    subscriptions, billing_periods, subscription_usage_meters, usage_events, billing_runs,
    billing_run_results, charges, calculations, invoice_requests, ledger_transactions,
    ledger_entries
TO billing_app;

-- SELECT ... FOR UPDATE of a plan asks for the right to update; facts_never_change still refuses.
GRANT UPDATE ON plans TO billing_app;
GRANT UPDATE (
    status, plan_version_id, current_period_id, current_period_start, current_period_end,
    cancel_at, paused_at, cancelled_at, updated_at
) ON subscriptions TO billing_app;
GRANT UPDATE (
    period_end, status, total_amount, closing_receivable_amount, billed_at, invoiced_at, invoice_id
) ON billing_periods TO billing_app;
GRANT UPDATE (quantity, rated_amount, event_count, updated_at)
    ON subscription_usage_meters TO billing_app;
GRANT UPDATE (
    status, completed_at, result_count, succeeded_count, failed_count, skipped_count
) ON billing_runs TO billing_app;
GRANT UPDATE (
    status, total_amount, invoice_id, calculation_run_id, error_reason, error_message, completed_at
) ON billing_run_results TO billing_app;
GRANT UPDATE (
    status, superseded_by_calculation_id, source_invoice_id, source_credit_note_id
) ON calculations TO billing_app;
GRANT UPDATE (status, posted_at, discarded_at) ON ledger_entries TO billing_app;

GRANT SELECT, INSERT, UPDATE, DELETE
    ON pgqueuer, pgqueuer_log, pgqueuer_schedules, pgqueuer_statistics TO billing_app;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO billing_app;
-- The server checks at its start that the schema is the one it was written for.
GRANT SELECT ON alembic_version TO billing_app;

DO $$
DECLARE
    scoped text;
BEGIN
    FOREACH scoped IN ARRAY ARRAY[
        'idempotent_requests', 'usage_meters', 'plans', 'plan_versions', 'components',
        'ledger_accounts', 'subscriptions', 'billing_periods', 'subscription_usage_meters',
        'usage_events', 'billing_runs', 'billing_run_results', 'charges', 'calculations',
        'invoice_requests', 'ledger_transactions', 'ledger_entries'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', scoped);
        -- As sub-selects the settings are read once a statement, not once a row.
        EXECUTE format(
            'CREATE POLICY one_scope ON %I USING ('
            ' tenant_id = (SELECT current_setting(''billing.tenant_id'', true))'
            ' AND livemode = (SELECT nullif(current_setting(''billing.livemode'', true), '''')::boolean)'
            ')', scoped);
    END LOOP;
END $$;
