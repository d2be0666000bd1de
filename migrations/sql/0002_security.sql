-- What the application may do with credits, payments and refunds, and of whom it sees them.

GRANT SELECT, INSERT ON
    usage_credits, usage_credit_balances, usage_credit_applications,
    usage_credit_balance_adjustments, payments, refunds
TO billing_app;

GRANT UPDATE (notes, metadata, updated_at) ON usage_credits TO billing_app;
GRANT UPDATE (status, remaining_amount, held_amount, voided_at, expired_at, updated_at)
    ON usage_credit_balances TO billing_app;
GRANT UPDATE (
    status, processor_transaction_id, processed_at, failure_reason, usage_credit_id,
    payment_method_details, invoice_id, updated_at
) ON payments TO billing_app;
GRANT UPDATE (
    status, refund_processed_at, gateway_refund_id, failure_reason, clawed_back_amount, updated_at
) ON refunds TO billing_app;
GRANT UPDATE (receivable_amount) ON billing_periods TO billing_app;

DO $$
DECLARE
    scoped text;
BEGIN
    FOREACH scoped IN ARRAY ARRAY[
        'usage_credits', 'usage_credit_balances', 'usage_credit_applications',
        'usage_credit_balance_adjustments', 'payments', 'refunds'
    ] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', scoped);
        EXECUTE format(
            'CREATE POLICY one_scope ON %I USING ('
            ' tenant_id = (SELECT current_setting(''billing.tenant_id'', true))'
            ' AND livemode = (SELECT nullif(current_setting(''billing.livemode'', true), '''')::boolean)'
            ')', scoped);
    END LOOP;
END $$;
