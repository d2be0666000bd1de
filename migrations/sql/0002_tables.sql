-- Credits, payments, refunds: tables, keys and checks; src/billing/store/tables/ describes them.
--
-- Primary keys come after the other indexes of their tables, for the reason told in 0001_tables.

ALTER TABLE ledger_accounts
    DROP CONSTRAINT uq_ledger_accounts_tenant_id_livemode_kind_currency_sub_6770,
    DROP CONSTRAINT ck_ledger_accounts_kind,
    DROP CONSTRAINT ck_ledger_accounts_subscription_id,
    ADD CONSTRAINT ck_ledger_accounts_kind CHECK (kind IN ('receivable', 'usage_revenue', 'subscription_revenue', 'credit', 'cash', 'promotional_expense', 'breakage', 'refund_clearing', 'refunds_and_allowances')),
    ADD CONSTRAINT ck_ledger_accounts_subscription_id CHECK ((kind IN ('receivable', 'credit', 'refund_clearing')) = (subscription_id IS NOT NULL));
-- A look-up by id must not scan this index: so the primary key is made anew, after it.
ALTER TABLE subscriptions DROP CONSTRAINT fk_subscriptions_ledger_accounts;
ALTER TABLE ledger_accounts DROP CONSTRAINT pk_ledger_accounts;
CREATE UNIQUE INDEX uq_ledger_accounts_kind ON ledger_accounts (tenant_id, livemode, kind, currency, subscription_id) NULLS NOT DISTINCT WHERE kind <> 'credit';
ALTER TABLE ledger_accounts ADD CONSTRAINT pk_ledger_accounts PRIMARY KEY (tenant_id, livemode, id);
ALTER TABLE subscriptions ADD CONSTRAINT fk_subscriptions_ledger_accounts FOREIGN KEY(tenant_id, livemode, receivable_account_id) REFERENCES ledger_accounts (tenant_id, livemode, id);

-- Every tenant has the new accounts once a currency, as if its plans had been made today.
INSERT INTO ledger_accounts (tenant_id, livemode, id, kind, currency, created_at)
SELECT held.tenant_id, held.livemode, gen_random_uuid(), added.kind, held.currency, now()
FROM (SELECT DISTINCT tenant_id, livemode, currency FROM ledger_accounts WHERE subscription_id IS NULL) AS held
CROSS JOIN unnest(ARRAY['cash', 'promotional_expense', 'breakage', 'refunds_and_allowances']) AS added (kind);

ALTER TABLE ledger_transactions
    DROP CONSTRAINT ck_ledger_transactions_initiating_source_type,
    ADD CONSTRAINT ck_ledger_transactions_initiating_source_type CHECK (initiating_source_type IN ('usage_ingestion', 'billing_run', 'credit_grant', 'credit_void', 'credit_balance_adjustment', 'credit_expiration', 'payment', 'refund'));

ALTER TABLE subscriptions
    ADD COLUMN credit_application TEXT DEFAULT 'at_billing' NOT NULL,
    ADD CONSTRAINT ck_subscriptions_credit_application CHECK (credit_application IN ('at_billing', 'realtime'));

ALTER TABLE billing_periods ADD COLUMN receivable_amount BIGINT DEFAULT 0 NOT NULL;
UPDATE billing_periods SET receivable_amount = total_amount WHERE total_amount <> 0;
COMMENT ON TABLE billing_periods IS 'total_amount: what was invoiced; receivable_amount: posted receivable of the period, of an open one without its usage_cost; closing_receivable_amount: receivable of the subscription''s periods up to this one, kept true on the last closed one: a snapshot for balances.';

ALTER TABLE charges
    DROP CONSTRAINT ck_charges_charge_type,
    ADD CONSTRAINT ck_charges_charge_type CHECK (charge_type IN ('recurring', 'usage', 'credit_deficit', 'credit', 'carried'));

CREATE TABLE usage_credits (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    credit_type TEXT NOT NULL,
    source_reference_id TEXT,
    billing_period_id UUID,
    usage_meter_id UUID,
    component_id UUID,
    issued_amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    priority INTEGER NOT NULL,
    covers_charges BOOLEAN NOT NULL,
    effective_at TIMESTAMP WITH TIME ZONE NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    issued_at TIMESTAMP WITH TIME ZONE NOT NULL,
    initial_status TEXT NOT NULL,
    notes TEXT,
    metadata JSONB,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_usage_credits_tenant_id_livemode_subscription_id_id UNIQUE (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_usage_credits_ledger_accounts FOREIGN KEY(tenant_id, livemode, id) REFERENCES ledger_accounts (tenant_id, livemode, id),
    CONSTRAINT fk_usage_credits_subscriptions FOREIGN KEY(tenant_id, livemode, subscription_id) REFERENCES subscriptions (tenant_id, livemode, id),
    CONSTRAINT fk_usage_credits_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_usage_credits_usage_meters FOREIGN KEY(tenant_id, livemode, usage_meter_id) REFERENCES usage_meters (tenant_id, livemode, id),
    CONSTRAINT fk_usage_credits_components FOREIGN KEY(tenant_id, livemode, component_id) REFERENCES components (tenant_id, livemode, id),
    CONSTRAINT ck_usage_credits_credit_type CHECK (credit_type IN ('granted_promo', 'granted_goodwill', 'granted_service_credit', 'granted_referral', 'payment_top_up', 'payment_period_settlement', 'surplus')),
    CONSTRAINT ck_usage_credits_issued_amount CHECK (issued_amount > 0),
    CONSTRAINT ck_usage_credits_expires_at CHECK (expires_at > effective_at),
    CONSTRAINT ck_usage_credits_initial_status CHECK (initial_status = 'granted_active')
);
ALTER TABLE usage_credits ADD CONSTRAINT pk_usage_credits PRIMARY KEY (tenant_id, livemode, id);
COMMENT ON TABLE usage_credits IS 'Grants; all but notes and metadata never changes.';

CREATE TABLE usage_credit_balances (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    usage_credit_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    status TEXT NOT NULL,
    remaining_amount BIGINT NOT NULL,
    held_amount BIGINT NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    voided_at TIMESTAMP WITH TIME ZONE,
    expired_at TIMESTAMP WITH TIME ZONE,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT fk_usage_credit_balances_usage_credits FOREIGN KEY(tenant_id, livemode, subscription_id, usage_credit_id) REFERENCES usage_credits (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_usage_credit_balances_status CHECK (status IN ('available', 'partially_used', 'fully_used', 'expired', 'voided')),
    CONSTRAINT ck_usage_credit_balances_remaining_amount CHECK (remaining_amount >= 0),
    CONSTRAINT ck_usage_credit_balances_held_amount CHECK (held_amount >= 0),
    CONSTRAINT ck_usage_credit_balances_voided_at CHECK ((status = 'voided') = (voided_at IS NOT NULL)),
    CONSTRAINT ck_usage_credit_balances_expired_at CHECK ((status = 'expired') = (expired_at IS NOT NULL))
);
CREATE INDEX ix_usage_credit_balances_expiring ON usage_credit_balances (tenant_id, livemode, expires_at) WHERE remaining_amount > 0 AND expires_at IS NOT NULL;
CREATE INDEX ix_usage_credit_balances_live ON usage_credit_balances (tenant_id, livemode, subscription_id) WHERE remaining_amount > 0 OR held_amount > 0;
ALTER TABLE usage_credit_balances ADD CONSTRAINT pk_usage_credit_balances PRIMARY KEY (tenant_id, livemode, usage_credit_id);
COMMENT ON TABLE usage_credit_balances IS 'remaining_amount can be spent, held_amount is in the hands of pending entries; together they are what the credit''s account holds.';

CREATE TABLE payments (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    purpose TEXT NOT NULL,
    amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    status TEXT NOT NULL,
    billing_period_id UUID,
    invoice_id TEXT,
    payment_method_details JSONB,
    processor_transaction_id TEXT,
    processed_at TIMESTAMP WITH TIME ZONE,
    failure_reason TEXT,
    usage_credit_id UUID,
    metadata JSONB,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_payments_tenant_id_livemode_subscription_id_id UNIQUE (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_payments_subscriptions FOREIGN KEY(tenant_id, livemode, subscription_id) REFERENCES subscriptions (tenant_id, livemode, id),
    CONSTRAINT fk_payments_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_payments_usage_credits FOREIGN KEY(tenant_id, livemode, subscription_id, usage_credit_id) REFERENCES usage_credits (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_payments_purpose CHECK (purpose IN ('top_up', 'period_settlement')),
    CONSTRAINT ck_payments_status CHECK (status IN ('pending', 'succeeded', 'failed')),
    CONSTRAINT ck_payments_amount CHECK (amount > 0),
    CONSTRAINT ck_payments_billing_period_id CHECK ((purpose = 'period_settlement') = (billing_period_id IS NOT NULL)),
    CONSTRAINT ck_payments_facts CHECK ((status = 'succeeded') = (usage_credit_id IS NOT NULL) AND (status = 'succeeded') = (processor_transaction_id IS NOT NULL) AND (status = 'succeeded') = (processed_at IS NOT NULL) AND (status = 'failed') = (failure_reason IS NOT NULL))
);
CREATE UNIQUE INDEX uq_payments_processor_transaction ON payments (tenant_id, livemode, processor_transaction_id) WHERE processor_transaction_id IS NOT NULL;
CREATE UNIQUE INDEX uq_payments_usage_credit ON payments (tenant_id, livemode, usage_credit_id) WHERE usage_credit_id IS NOT NULL;
ALTER TABLE payments ADD CONSTRAINT pk_payments PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE refunds (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    payment_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    reason TEXT,
    status TEXT NOT NULL,
    credit_policy TEXT NOT NULL,
    clawed_back_amount BIGINT NOT NULL,
    reversed_amount BIGINT NOT NULL,
    deficit_amount BIGINT NOT NULL,
    refund_processed_at TIMESTAMP WITH TIME ZONE,
    gateway_refund_id TEXT,
    failure_reason TEXT,
    notes TEXT,
    initiated_by_user_id TEXT,
    ledger_transaction_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_refunds_tenant_id_livemode_subscription_id_id UNIQUE (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_refunds_payments FOREIGN KEY(tenant_id, livemode, subscription_id, payment_id) REFERENCES payments (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_refunds_status CHECK (status IN ('pending', 'succeeded', 'failed')),
    CONSTRAINT ck_refunds_credit_policy CHECK (credit_policy IN ('revert_unused', 'revert_all', 'keep')),
    CONSTRAINT ck_refunds_amount CHECK (amount > 0),
    CONSTRAINT ck_refunds_parts CHECK (clawed_back_amount >= 0 AND reversed_amount >= 0 AND deficit_amount >= 0 AND clawed_back_amount + reversed_amount + deficit_amount <= amount),
    CONSTRAINT ck_refunds_facts CHECK ((status = 'succeeded') = (gateway_refund_id IS NOT NULL) AND (status = 'succeeded') = (refund_processed_at IS NOT NULL) AND (status = 'failed') = (failure_reason IS NOT NULL))
);
CREATE INDEX ix_refunds_payment ON refunds (tenant_id, livemode, payment_id);
CREATE UNIQUE INDEX uq_refunds_gateway_refund ON refunds (tenant_id, livemode, gateway_refund_id) WHERE gateway_refund_id IS NOT NULL;
ALTER TABLE refunds ADD CONSTRAINT pk_refunds PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE usage_credit_applications (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    usage_credit_id UUID NOT NULL,
    kind TEXT NOT NULL,
    calculation_run_id UUID NOT NULL,
    billing_period_id UUID NOT NULL,
    component_id UUID,
    usage_meter_id UUID,
    amount_applied BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    usage_from TIMESTAMP WITH TIME ZONE,
    usage_until TIMESTAMP WITH TIME ZONE,
    applied_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ledger_transaction_id UUID NOT NULL,
    CONSTRAINT fk_usage_credit_applications_usage_credits FOREIGN KEY(tenant_id, livemode, subscription_id, usage_credit_id) REFERENCES usage_credits (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_usage_credit_applications_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_usage_credit_applications_kind CHECK (kind IN ('run', 'realtime', 'settlement')),
    CONSTRAINT ck_usage_credit_applications_amount_applied CHECK (amount_applied > 0),
    CONSTRAINT ck_usage_credit_applications_component_id CHECK ((component_id IS NULL) = (usage_meter_id IS NULL)),
    CONSTRAINT ck_usage_credit_applications_usage_span CHECK (usage_from < usage_until)
);
CREATE INDEX ix_usage_credit_applications_credit ON usage_credit_applications (tenant_id, livemode, usage_credit_id, id);
CREATE INDEX ix_usage_credit_applications_period ON usage_credit_applications (tenant_id, livemode, billing_period_id);
CREATE INDEX ix_usage_credit_applications_subscription ON usage_credit_applications (tenant_id, livemode, subscription_id, id);
ALTER TABLE usage_credit_applications ADD CONSTRAINT pk_usage_credit_applications PRIMARY KEY (tenant_id, livemode, id);
COMMENT ON TABLE usage_credit_applications IS 'An application''s entry has its id. It counts unless its entry was discarded.';

CREATE TABLE usage_credit_balance_adjustments (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    usage_credit_id UUID NOT NULL,
    adjustment_type TEXT NOT NULL,
    direction TEXT NOT NULL,
    amount_adjusted BIGINT NOT NULL,
    deficit_amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    reason TEXT NOT NULL,
    adjusted_by_user_id TEXT,
    notes TEXT,
    metadata JSONB,
    source_refund_id UUID,
    adjustment_initiated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    ledger_transaction_id UUID NOT NULL,
    CONSTRAINT fk_usage_credit_balance_adjustments_usage_credits FOREIGN KEY(tenant_id, livemode, subscription_id, usage_credit_id) REFERENCES usage_credits (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_usage_credit_balance_adjustments_refunds FOREIGN KEY(tenant_id, livemode, subscription_id, source_refund_id) REFERENCES refunds (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_usage_credit_balance_adjustments_adjustment_type CHECK (adjustment_type IN ('clawback_error', 'clawback_terms_violation', 'admin_reduction', 'grant_correction', 'clawback_refund', 'void')),
    CONSTRAINT ck_usage_credit_balance_adjustments_direction CHECK (direction IN ('decrease', 'increase')),
    CONSTRAINT ck_usage_credit_balance_adjustments_amount_adjusted CHECK (amount_adjusted > 0),
    CONSTRAINT ck_usage_credit_balance_adjustments_deficit_amount CHECK (deficit_amount BETWEEN 0 AND amount_adjusted),
    CONSTRAINT ck_usage_credit_balance_adjustments_source_refund_id CHECK ((adjustment_type = 'clawback_refund') = (source_refund_id IS NOT NULL)),
    CONSTRAINT ck_usage_credit_balance_adjustments_increase CHECK (direction = 'decrease' OR deficit_amount = 0)
);
CREATE INDEX ix_usage_credit_balance_adjustments_credit ON usage_credit_balance_adjustments (tenant_id, livemode, usage_credit_id, id);
CREATE UNIQUE INDEX uq_usage_credit_balance_adjustments_refund ON usage_credit_balance_adjustments (tenant_id, livemode, source_refund_id) WHERE source_refund_id IS NOT NULL;
ALTER TABLE usage_credit_balance_adjustments ADD CONSTRAINT pk_usage_credit_balance_adjustments PRIMARY KEY (tenant_id, livemode, id);

ALTER TABLE ledger_entries
    DROP CONSTRAINT ck_ledger_entries_entry_type,
    ADD CONSTRAINT ck_ledger_entries_entry_type CHECK (CASE WHEN entry_type = 'usage_cost' THEN amount <= 0 AND source_usage_event_id IS NOT NULL AND billing_period_id IS NOT NULL AND usage_meter_id IS NOT NULL AND num_nonnulls(source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'charge_billed' THEN amount <> 0 AND source_charge_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'payment_recognized' THEN amount > 0 AND source_payment_id IS NOT NULL AND source_usage_credit_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_refund_id) = 0 WHEN entry_type = 'credit_grant_recognized' THEN amount > 0 AND source_usage_credit_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'surplus_credited' THEN amount > 0 AND source_usage_credit_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'credit_applied_to_usage' THEN amount > 0 AND source_usage_credit_id IS NOT NULL AND source_credit_application_id IS NOT NULL AND billing_period_id IS NOT NULL AND usage_meter_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'credit_applied_to_charge' THEN amount > 0 AND source_usage_credit_id IS NOT NULL AND source_credit_application_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'credit_application_reversed' THEN amount < 0 AND source_usage_credit_id IS NOT NULL AND source_credit_application_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'credit_balance_adjusted' THEN amount <> 0 AND source_usage_credit_id IS NOT NULL AND source_credit_balance_adjustment_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_billing_period_calculation_id, source_payment_id) = 0 WHEN entry_type = 'credit_deficit_charged' THEN amount < 0 AND source_usage_credit_id IS NOT NULL AND source_credit_balance_adjustment_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_billing_period_calculation_id, source_payment_id) = 0 WHEN entry_type = 'credit_grant_expired' THEN amount < 0 AND source_usage_credit_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'payment_refunded' THEN amount < 0 AND source_payment_id IS NOT NULL AND source_refund_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id) = 0 WHEN entry_type = 'refund_absorbed' THEN amount > 0 AND source_refund_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id) = 0 ELSE false END);
CREATE INDEX ix_ledger_entries_reversals ON ledger_entries (tenant_id, livemode, source_credit_application_id) WHERE entry_type = 'credit_application_reversed';
CREATE UNIQUE INDEX uq_ledger_entries_credit_applied ON ledger_entries (tenant_id, livemode, source_credit_application_id) WHERE entry_type IN ('credit_applied_to_usage', 'credit_applied_to_charge');
CREATE UNIQUE INDEX uq_ledger_entries_credit_grant_expired ON ledger_entries (tenant_id, livemode, source_usage_credit_id, ledger_transaction_id) WHERE entry_type IN ('credit_grant_expired');
CREATE UNIQUE INDEX uq_ledger_entries_credit_origin ON ledger_entries (tenant_id, livemode, source_usage_credit_id) WHERE entry_type IN ('credit_grant_recognized', 'payment_recognized', 'surplus_credited');
CREATE UNIQUE INDEX uq_ledger_entries_payment_recognized ON ledger_entries (tenant_id, livemode, source_payment_id) WHERE entry_type IN ('payment_recognized');
CREATE UNIQUE INDEX uq_ledger_entries_payment_refunded ON ledger_entries (tenant_id, livemode, source_refund_id) WHERE entry_type IN ('payment_refunded');
CREATE UNIQUE INDEX uq_ledger_entries_refund_absorbed ON ledger_entries (tenant_id, livemode, source_refund_id) WHERE entry_type IN ('refund_absorbed');
