-- What the application may do with recalculations, corrections of usage and write-offs, and of whom it
-- sees them.

GRANT SELECT, INSERT ON
    usage_event_corrections, recalculations, recalculation_documents, write_offs
TO billing_app;

GRANT UPDATE (document_id, delivered_at, failure) ON recalculation_documents TO billing_app;
GRANT UPDATE (recovered_amount, updated_at) ON write_offs TO billing_app;
GRANT UPDATE (pending_quantity, pending_amount, pending_event_count)
    ON subscription_usage_meters TO billing_app;

DO $$
DECLARE
    scoped text;
BEGIN
    FOREACH scoped IN ARRAY ARRAY[
        'usage_event_corrections', 'recalculations', 'recalculation_documents', 'write_offs'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', scoped);
        EXECUTE format(
            'CREATE POLICY one_scope ON %I USING ('
            ' tenant_id = (SELECT current_setting(''billing.tenant_id'', true))'
            ' AND livemode = (SELECT nullif(current_setting(''billing.livemode'', true), '''')::boolean)'
            ')', scoped);
    END LOOP;
END $$;
