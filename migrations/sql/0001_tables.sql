-- Tables, keys and checks; src/billing/store/tables.py describes them column by column.
--
-- Each primary key is made after its table's other indexes. All keys begin with the same two
-- columns, so on a table without statistics the planner finds them equally good, and of equals it
-- takes the youngest; a look-up by id must not scan another key until the first ANALYZE.

CREATE TABLE billing_runs (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    run_type TEXT NOT NULL,
    status TEXT NOT NULL,
    as_of TIMESTAMP WITH TIME ZONE NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE,
    result_count INTEGER DEFAULT 0 NOT NULL,
    succeeded_count INTEGER DEFAULT 0 NOT NULL,
    failed_count INTEGER DEFAULT 0 NOT NULL,
    skipped_count INTEGER DEFAULT 0 NOT NULL,
    CONSTRAINT ck_billing_runs_run_type CHECK (run_type IN ('scheduled', 'manual', 'single')),
    CONSTRAINT ck_billing_runs_status CHECK (status IN ('running', 'completed', 'failed')),
    CONSTRAINT ck_billing_runs_completed_at CHECK ((status = 'running') = (completed_at IS NULL)),
    CONSTRAINT ck_billing_runs_counts CHECK (succeeded_count + failed_count + skipped_count <= result_count)
);
CREATE INDEX ix_billing_runs_running ON billing_runs (tenant_id, livemode, id) WHERE status = 'running';
ALTER TABLE billing_runs ADD CONSTRAINT pk_billing_runs PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE idempotent_requests (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    method TEXT NOT NULL,
    request_id TEXT NOT NULL,
    request_hash BYTEA NOT NULL,
    response JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL
);
ALTER TABLE idempotent_requests ADD CONSTRAINT pk_idempotent_requests PRIMARY KEY (tenant_id, livemode, method, request_id);
COMMENT ON TABLE idempotent_requests IS 'The answers of successful mutations, for ever.';

CREATE TABLE ledger_accounts (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    kind TEXT NOT NULL,
    currency CHAR(3) NOT NULL,
    subscription_id UUID,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_ledger_accounts_tenant_id_livemode_kind_currency_sub_6770 UNIQUE NULLS NOT DISTINCT (tenant_id, livemode, kind, currency, subscription_id),
    CONSTRAINT ck_ledger_accounts_kind CHECK (kind IN ('receivable', 'usage_revenue', 'subscription_revenue')),
    CONSTRAINT ck_ledger_accounts_subscription_id CHECK ((kind = 'receivable') = (subscription_id IS NOT NULL))
);
ALTER TABLE ledger_accounts ADD CONSTRAINT pk_ledger_accounts PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE plans (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    currency CHAR(3) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL
);
ALTER TABLE plans ADD CONSTRAINT pk_plans PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE tenants (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL
);
ALTER TABLE tenants ADD CONSTRAINT pk_tenants PRIMARY KEY (tenant_id, livemode);
COMMENT ON TABLE tenants IS 'Every owner of data; outside row security, so that workers find them.';

CREATE TABLE usage_meters (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    code TEXT NOT NULL,
    name TEXT NOT NULL,
    aggregation TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_usage_meters_tenant_id_livemode_code UNIQUE (tenant_id, livemode, code),
    CONSTRAINT ck_usage_meters_aggregation CHECK (aggregation IN ('sum'))
);
ALTER TABLE usage_meters ADD CONSTRAINT pk_usage_meters PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE plan_versions (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    plan_id UUID NOT NULL,
    version INTEGER NOT NULL,
    name TEXT NOT NULL,
    base_price_amount BIGINT NOT NULL,
    interval_unit TEXT NOT NULL,
    interval_count INTEGER NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_plan_versions_tenant_id_livemode_plan_id_version UNIQUE (tenant_id, livemode, plan_id, version),
    CONSTRAINT fk_plan_versions_plans FOREIGN KEY(tenant_id, livemode, plan_id) REFERENCES plans (tenant_id, livemode, id),
    CONSTRAINT ck_plan_versions_interval_unit CHECK (interval_unit IN ('day', 'week', 'month', 'year')),
    CONSTRAINT ck_plan_versions_interval_count CHECK (interval_count > 0),
    CONSTRAINT ck_plan_versions_base_price_amount CHECK (base_price_amount >= 0)
);
ALTER TABLE plan_versions ADD CONSTRAINT pk_plan_versions PRIMARY KEY (tenant_id, livemode, id);
COMMENT ON TABLE plan_versions IS 'Published states of plans; they never change.';

CREATE TABLE subscriptions (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    customer_id TEXT NOT NULL,
    plan_id UUID NOT NULL,
    currency CHAR(3) NOT NULL,
    status TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    receivable_account_id UUID NOT NULL,
    current_period_id UUID NOT NULL,
    current_period_start TIMESTAMP WITH TIME ZONE NOT NULL,
    current_period_end TIMESTAMP WITH TIME ZONE NOT NULL,
    plan_version_id UUID NOT NULL,
    cancel_at TIMESTAMP WITH TIME ZONE,
    paused_at TIMESTAMP WITH TIME ZONE,
    cancelled_at TIMESTAMP WITH TIME ZONE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT fk_subscriptions_plans FOREIGN KEY(tenant_id, livemode, plan_id) REFERENCES plans (tenant_id, livemode, id),
    CONSTRAINT fk_subscriptions_ledger_accounts FOREIGN KEY(tenant_id, livemode, receivable_account_id) REFERENCES ledger_accounts (tenant_id, livemode, id),
    CONSTRAINT ck_subscriptions_status CHECK (status IN ('active', 'paused', 'cancelled')),
    CONSTRAINT ck_subscriptions_paused_at CHECK ((status = 'paused') = (paused_at IS NOT NULL)),
    CONSTRAINT ck_subscriptions_cancelled_at CHECK ((status = 'cancelled') = (cancelled_at IS NOT NULL))
);
CREATE INDEX ix_subscriptions_customer ON subscriptions (tenant_id, livemode, customer_id);
CREATE INDEX ix_subscriptions_due ON subscriptions (tenant_id, livemode, current_period_end) WHERE status = 'active';
ALTER TABLE subscriptions ADD CONSTRAINT pk_subscriptions PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE billing_periods (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    plan_version_id UUID NOT NULL,
    anchor_at TIMESTAMP WITH TIME ZONE NOT NULL,
    period_start TIMESTAMP WITH TIME ZONE NOT NULL,
    period_end TIMESTAMP WITH TIME ZONE NOT NULL,
    status TEXT NOT NULL,
    total_amount BIGINT,
    closing_receivable_amount BIGINT,
    billed_at TIMESTAMP WITH TIME ZONE,
    invoiced_at TIMESTAMP WITH TIME ZONE,
    invoice_id TEXT,
    CONSTRAINT uq_billing_periods_tenant_id_livemode_subscription_id_p_1b96 UNIQUE (tenant_id, livemode, subscription_id, period_start),
    CONSTRAINT uq_billing_periods_tenant_id_livemode_subscription_id_id UNIQUE (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_billing_periods_subscriptions FOREIGN KEY(tenant_id, livemode, subscription_id) REFERENCES subscriptions (tenant_id, livemode, id),
    CONSTRAINT fk_billing_periods_plan_versions FOREIGN KEY(tenant_id, livemode, plan_version_id) REFERENCES plan_versions (tenant_id, livemode, id),
    CONSTRAINT ck_billing_periods_status CHECK (status IN ('open', 'billed', 'invoiced')),
    CONSTRAINT ck_billing_periods_span CHECK (period_start < period_end),
    CONSTRAINT ck_billing_periods_facts CHECK ((status = 'open') = (billed_at IS NULL) AND (status = 'open') = (total_amount IS NULL) AND (status = 'open') = (closing_receivable_amount IS NULL) AND (status = 'invoiced') = (invoiced_at IS NOT NULL))
);
CREATE INDEX ix_billing_periods_not_invoiced ON billing_periods (tenant_id, livemode, id) WHERE status = 'billed';
ALTER TABLE billing_periods ADD CONSTRAINT pk_billing_periods PRIMARY KEY (tenant_id, livemode, id);
COMMENT ON TABLE billing_periods IS 'total_amount: posted receivable of the period; closing_receivable_amount: the same summed over the subscription''s periods up to this one, a snapshot for balances.';

CREATE TABLE components (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    plan_version_id UUID NOT NULL,
    position INTEGER NOT NULL,
    usage_meter_id UUID NOT NULL,
    name TEXT NOT NULL,
    unit_price NUMERIC NOT NULL,
    included_units NUMERIC NOT NULL,
    CONSTRAINT uq_components_tenant_id_livemode_plan_version_id_usage_meter_id UNIQUE (tenant_id, livemode, plan_version_id, usage_meter_id),
    CONSTRAINT fk_components_plan_versions FOREIGN KEY(tenant_id, livemode, plan_version_id) REFERENCES plan_versions (tenant_id, livemode, id),
    CONSTRAINT fk_components_usage_meters FOREIGN KEY(tenant_id, livemode, usage_meter_id) REFERENCES usage_meters (tenant_id, livemode, id),
    CONSTRAINT ck_components_unit_price CHECK (unit_price >= 0),
    CONSTRAINT ck_components_included_units CHECK (included_units >= 0)
);
ALTER TABLE components ADD CONSTRAINT pk_components PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE ledger_transactions (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    initiating_source_type TEXT NOT NULL,
    initiating_source_id UUID NOT NULL,
    description TEXT NOT NULL,
    metadata JSONB,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_ledger_transactions_tenant_id_livemode_subscription_id_id UNIQUE (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_ledger_transactions_subscriptions FOREIGN KEY(tenant_id, livemode, subscription_id) REFERENCES subscriptions (tenant_id, livemode, id),
    CONSTRAINT ck_ledger_transactions_initiating_source_type CHECK (initiating_source_type IN ('usage_ingestion', 'billing_run'))
);
ALTER TABLE ledger_transactions ADD CONSTRAINT pk_ledger_transactions PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE billing_run_results (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    billing_run_id UUID NOT NULL,
    id UUID NOT NULL,
    batch INTEGER NOT NULL,
    subscription_id UUID NOT NULL,
    billing_period_id UUID NOT NULL,
    status TEXT NOT NULL,
    total_amount BIGINT,
    invoice_id TEXT,
    calculation_run_id UUID,
    error_reason TEXT,
    error_message TEXT,
    taken_by_run_id UUID,
    completed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT uq_billing_run_results_tenant_id_livemode_billing_run_i_4240 UNIQUE (tenant_id, livemode, billing_run_id, billing_period_id),
    CONSTRAINT fk_billing_run_results_billing_runs FOREIGN KEY(tenant_id, livemode, billing_run_id) REFERENCES billing_runs (tenant_id, livemode, id),
    CONSTRAINT fk_billing_run_results_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_billing_run_results_status CHECK (status IN ('pending', 'succeeded', 'failed', 'skipped')),
    CONSTRAINT ck_billing_run_results_completed_at CHECK ((status = 'pending') = (completed_at IS NULL)),
    CONSTRAINT ck_billing_run_results_error_reason CHECK ((status = 'failed') = (error_reason IS NOT NULL)),
    CONSTRAINT ck_billing_run_results_taken_by CHECK ((status = 'skipped') = (taken_by_run_id IS NOT NULL))
);
CREATE INDEX ix_billing_run_results_pending_batch ON billing_run_results (tenant_id, livemode, billing_run_id, batch) WHERE status = 'pending';
CREATE UNIQUE INDEX uq_billing_run_results_pending_period ON billing_run_results (tenant_id, livemode, billing_period_id) WHERE status = 'pending';
ALTER TABLE billing_run_results ADD CONSTRAINT pk_billing_run_results PRIMARY KEY (tenant_id, livemode, billing_run_id, id);

CREATE TABLE calculations (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    calculation_run_id UUID NOT NULL,
    billing_run_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    billing_period_id UUID NOT NULL,
    component_id UUID NOT NULL,
    usage_meter_id UUID NOT NULL,
    calculated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    calculation_type TEXT NOT NULL,
    total_quantity NUMERIC NOT NULL,
    billable_quantity NUMERIC NOT NULL,
    unit_price NUMERIC NOT NULL,
    total_raw_usage_amount BIGINT NOT NULL,
    credits_applied_amount BIGINT NOT NULL,
    net_billed_amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    status TEXT NOT NULL,
    superseded_by_calculation_id UUID,
    source_invoice_id TEXT,
    source_credit_note_id TEXT,
    notes TEXT,
    CONSTRAINT uq_calculations_tenant_id_livemode_calculation_run_id_c_2d2b UNIQUE (tenant_id, livemode, calculation_run_id, component_id),
    CONSTRAINT fk_calculations_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_calculations_calculation_type CHECK (calculation_type IN ('billing_run')),
    CONSTRAINT ck_calculations_status CHECK (status IN ('active', 'superseded')),
    CONSTRAINT ck_calculations_superseded CHECK ((status = 'superseded') = (superseded_by_calculation_id IS NOT NULL)),
    CONSTRAINT ck_calculations_net CHECK (net_billed_amount = total_raw_usage_amount - credits_applied_amount)
);
CREATE UNIQUE INDEX uq_calculations_active ON calculations (tenant_id, livemode, subscription_id, component_id, billing_period_id) WHERE status = 'active';
ALTER TABLE calculations ADD CONSTRAINT pk_calculations PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE charges (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    billing_period_id UUID NOT NULL,
    billing_run_id UUID NOT NULL,
    calculation_run_id UUID NOT NULL,
    position INTEGER NOT NULL,
    charge_type TEXT NOT NULL,
    component_id UUID,
    description TEXT NOT NULL,
    quantity NUMERIC NOT NULL,
    unit_price NUMERIC NOT NULL,
    amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_charges_live UNIQUE NULLS NOT DISTINCT (tenant_id, livemode, subscription_id, billing_period_id, charge_type, component_id),
    CONSTRAINT fk_charges_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_charges_charge_type CHECK (charge_type IN ('recurring', 'usage')),
    CONSTRAINT ck_charges_component_id CHECK ((charge_type = 'usage') = (component_id IS NOT NULL))
);
ALTER TABLE charges ADD CONSTRAINT pk_charges PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE invoice_requests (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    billing_period_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    request JSONB NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT fk_invoice_requests_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id)
);
ALTER TABLE invoice_requests ADD CONSTRAINT pk_invoice_requests PRIMARY KEY (tenant_id, livemode, billing_period_id);
COMMENT ON TABLE invoice_requests IS 'What the invoicing service is asked for, word for word at every attempt.';

CREATE TABLE subscription_usage_meters (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    billing_period_id UUID NOT NULL,
    component_id UUID NOT NULL,
    usage_meter_id UUID NOT NULL,
    quantity NUMERIC NOT NULL,
    rated_amount BIGINT NOT NULL,
    event_count BIGINT NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_subscription_usage_meters_tenant_id_livemode_billing_9012 UNIQUE (tenant_id, livemode, billing_period_id, component_id),
    CONSTRAINT uq_subscription_usage_meters_tenant_id_livemode_id_subs_f38c UNIQUE (tenant_id, livemode, id, subscription_id),
    CONSTRAINT fk_subscription_usage_meters_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_subscription_usage_meters_components FOREIGN KEY(tenant_id, livemode, component_id) REFERENCES components (tenant_id, livemode, id),
    CONSTRAINT ck_subscription_usage_meters_quantity CHECK (quantity >= 0),
    CONSTRAINT ck_subscription_usage_meters_rated_amount CHECK (rated_amount >= 0)
);
ALTER TABLE subscription_usage_meters ADD CONSTRAINT pk_subscription_usage_meters PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE usage_events (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    idempotency_key TEXT NOT NULL,
    payload_hash BYTEA NOT NULL,
    subscription_id UUID NOT NULL,
    subscription_usage_meter_id UUID NOT NULL,
    quantity NUMERIC NOT NULL,
    event_timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    properties JSONB,
    disposition TEXT NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_usage_events_tenant_id_livemode_idempotency_key UNIQUE (tenant_id, livemode, idempotency_key),
    CONSTRAINT fk_usage_events_subscription_usage_meters FOREIGN KEY(tenant_id, livemode, subscription_usage_meter_id, subscription_id) REFERENCES subscription_usage_meters (tenant_id, livemode, id, subscription_id),
    CONSTRAINT ck_usage_events_disposition CHECK (disposition IN ('rated', 'rated_late')),
    CONSTRAINT ck_usage_events_quantity CHECK (quantity >= 0)
);
ALTER TABLE usage_events ADD CONSTRAINT pk_usage_events PRIMARY KEY (tenant_id, livemode, id);

CREATE TABLE ledger_entries (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    subscription_id UUID NOT NULL,
    ledger_transaction_id UUID NOT NULL,
    id UUID NOT NULL,
    entry_type TEXT NOT NULL,
    status TEXT NOT NULL,
    amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    debit_account_id UUID NOT NULL,
    credit_account_id UUID NOT NULL,
    source_usage_event_id UUID,
    source_charge_id UUID,
    source_usage_credit_id UUID,
    source_credit_application_id UUID,
    source_credit_balance_adjustment_id UUID,
    source_billing_period_calculation_id UUID,
    source_payment_id UUID,
    source_refund_id UUID,
    applied_to_ledger_entry_id UUID,
    billing_period_id UUID,
    usage_meter_id UUID,
    calculation_run_id UUID,
    description TEXT NOT NULL,
    metadata JSONB,
    entry_timestamp TIMESTAMP WITH TIME ZONE NOT NULL,
    posted_at TIMESTAMP WITH TIME ZONE,
    discarded_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT fk_ledger_entries_ledger_transactions FOREIGN KEY(tenant_id, livemode, subscription_id, ledger_transaction_id) REFERENCES ledger_transactions (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_ledger_entries_usage_events FOREIGN KEY(tenant_id, livemode, source_usage_event_id) REFERENCES usage_events (tenant_id, livemode, id),
    CONSTRAINT fk_ledger_entries_charges FOREIGN KEY(tenant_id, livemode, source_charge_id) REFERENCES charges (tenant_id, livemode, id),
    CONSTRAINT ck_ledger_entries_status CHECK (status IN ('pending', 'posted')),
    CONSTRAINT ck_ledger_entries_lifecycle CHECK ((status = 'posted') = (posted_at IS NOT NULL) AND (discarded_at IS NULL OR status = 'pending')),
    CONSTRAINT ck_ledger_entries_two_accounts CHECK (debit_account_id <> credit_account_id),
    CONSTRAINT ck_ledger_entries_entry_type CHECK (CASE WHEN entry_type = 'usage_cost' THEN amount <= 0 AND source_usage_event_id IS NOT NULL AND billing_period_id IS NOT NULL AND usage_meter_id IS NOT NULL AND num_nonnulls(source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 WHEN entry_type = 'charge_billed' THEN amount <> 0 AND source_charge_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 ELSE false END)
);
CREATE UNIQUE INDEX uq_ledger_entries_charge_billed ON ledger_entries (tenant_id, livemode, source_charge_id) WHERE entry_type = 'charge_billed';
CREATE UNIQUE INDEX uq_ledger_entries_usage_cost ON ledger_entries (tenant_id, livemode, source_usage_event_id) WHERE entry_type = 'usage_cost';
ALTER TABLE ledger_entries ADD CONSTRAINT pk_ledger_entries PRIMARY KEY (tenant_id, livemode, subscription_id, ledger_transaction_id, id);
