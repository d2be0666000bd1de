-- Recalculations, estimates, corrections of usage, write-offs: tables, keys and checks;
-- src/billing/store/tables/ describes them.
--
-- Primary keys come after the other indexes of their tables, for the reason told in 0001_tables.

ALTER TABLE ledger_accounts
    DROP CONSTRAINT ck_ledger_accounts_kind,
    ADD CONSTRAINT ck_ledger_accounts_kind CHECK (kind IN ('receivable', 'usage_revenue', 'subscription_revenue', 'credit', 'cash', 'promotional_expense', 'breakage', 'refund_clearing', 'refunds_and_allowances', 'bad_debt'));

-- Every tenant has the new account once a currency, as if its plans had been made today.
INSERT INTO ledger_accounts (tenant_id, livemode, id, kind, currency, created_at)
SELECT held.tenant_id, held.livemode, gen_random_uuid(), 'bad_debt', held.currency, now()
FROM (SELECT DISTINCT tenant_id, livemode, currency FROM ledger_accounts WHERE subscription_id IS NULL) AS held;

ALTER TABLE ledger_transactions
    DROP CONSTRAINT ck_ledger_transactions_initiating_source_type,
    ADD CONSTRAINT ck_ledger_transactions_initiating_source_type CHECK (initiating_source_type IN ('usage_ingestion', 'billing_run', 'credit_grant', 'credit_void', 'credit_balance_adjustment', 'credit_expiration', 'payment', 'refund', 'usage_event_correction', 'estimate', 'recalculation', 'write_off', 'write_off_recovery'));

ALTER TABLE plan_versions
    ADD COLUMN late_usage_policy TEXT DEFAULT 'open_period' NOT NULL,
    ADD CONSTRAINT ck_plan_versions_late_usage_policy CHECK (late_usage_policy IN ('open_period', 'hold'));

COMMENT ON TABLE billing_periods IS 'total_amount: what was invoiced; receivable_amount: posted receivable of the period, of an open one without its usage; closing_receivable_amount: receivable of the subscription''s periods up to this one, kept true on the last closed one: a snapshot for balances.';

ALTER TABLE subscription_usage_meters
    ADD COLUMN pending_quantity NUMERIC DEFAULT 0 NOT NULL,
    ADD COLUMN pending_amount BIGINT DEFAULT 0 NOT NULL,
    ADD COLUMN pending_event_count BIGINT DEFAULT 0 NOT NULL,
    ADD CONSTRAINT ck_subscription_usage_meters_pending CHECK (quantity + pending_quantity >= 0 AND rated_amount + pending_amount >= 0 AND pending_event_count >= 0);
COMMENT ON TABLE subscription_usage_meters IS 'pending_*: held late events and corrections of a billed period, which wait for a recalculation.';

ALTER TABLE usage_events
    DROP CONSTRAINT ck_usage_events_disposition,
    ADD CONSTRAINT ck_usage_events_disposition CHECK (disposition IN ('rated', 'rated_late', 'held'));
CREATE INDEX ix_usage_events_held ON usage_events (tenant_id, livemode, subscription_usage_meter_id) WHERE disposition = 'held';

CREATE TABLE usage_event_corrections (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    billing_period_id UUID NOT NULL,
    usage_event_id UUID NOT NULL,
    correction_type TEXT NOT NULL,
    quantity_before NUMERIC NOT NULL,
    quantity_after NUMERIC NOT NULL,
    cost_change_amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    reason TEXT NOT NULL,
    corrected_by_user_id TEXT,
    ledger_transaction_id UUID NOT NULL,
    corrected_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT fk_usage_event_corrections_usage_events FOREIGN KEY(tenant_id, livemode, usage_event_id) REFERENCES usage_events (tenant_id, livemode, id),
    CONSTRAINT fk_usage_event_corrections_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_usage_event_corrections_ledger_transactions FOREIGN KEY(tenant_id, livemode, subscription_id, ledger_transaction_id) REFERENCES ledger_transactions (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_usage_event_corrections_correction_type CHECK (correction_type IN ('amendment', 'void')),
    CONSTRAINT ck_usage_event_corrections_quantities CHECK (quantity_before >= 0 AND quantity_after >= 0),
    CONSTRAINT ck_usage_event_corrections_void CHECK (correction_type <> 'void' OR quantity_after = 0)
);
CREATE INDEX ix_usage_event_corrections_event ON usage_event_corrections (tenant_id, livemode, usage_event_id, id);
CREATE INDEX ix_usage_event_corrections_period ON usage_event_corrections (tenant_id, livemode, subscription_id, billing_period_id, id);
CREATE UNIQUE INDEX uq_usage_event_corrections_void ON usage_event_corrections (tenant_id, livemode, usage_event_id) WHERE correction_type = 'void';
ALTER TABLE usage_event_corrections ADD CONSTRAINT pk_usage_event_corrections PRIMARY KEY (tenant_id, livemode, id);
COMMENT ON TABLE usage_event_corrections IS 'A correction''s entry has its id: pending in a billed period, until a recalculation.';

CREATE TABLE recalculations (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    billing_period_id UUID NOT NULL,
    ledger_transaction_id UUID NOT NULL,
    currency CHAR(3) NOT NULL,
    reason TEXT NOT NULL,
    raw_change_amount BIGINT NOT NULL,
    credits_change_amount BIGINT NOT NULL,
    net_change_amount BIGINT NOT NULL,
    recovered_amount BIGINT NOT NULL,
    released_amount BIGINT NOT NULL,
    surplus_amount BIGINT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT fk_recalculations_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT fk_recalculations_ledger_transactions FOREIGN KEY(tenant_id, livemode, subscription_id, ledger_transaction_id) REFERENCES ledger_transactions (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_recalculations_net_change CHECK (net_change_amount = raw_change_amount - credits_change_amount),
    CONSTRAINT ck_recalculations_restored CHECK (recovered_amount >= 0 AND released_amount >= 0 AND surplus_amount >= 0),
    CONSTRAINT uq_recalculations_tenant_id_livemode_subscription_id_bi_b90f UNIQUE (tenant_id, livemode, subscription_id, billing_period_id, id)
);
ALTER TABLE recalculations ADD CONSTRAINT pk_recalculations PRIMARY KEY (tenant_id, livemode, id);
COMMENT ON TABLE recalculations IS 'Changes of billed periods; the id is the calculation run''s.';

CREATE TABLE recalculation_documents (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    recalculation_id UUID NOT NULL,
    position INTEGER NOT NULL,
    kind TEXT NOT NULL,
    amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    invoice_id TEXT,
    request JSONB NOT NULL,
    document_id TEXT,
    delivered_at TIMESTAMP WITH TIME ZONE,
    failure TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT uq_recalculation_documents_tenant_id_livemode_recalcula_e46a UNIQUE (tenant_id, livemode, recalculation_id, position),
    CONSTRAINT fk_recalculation_documents_recalculations FOREIGN KEY(tenant_id, livemode, recalculation_id) REFERENCES recalculations (tenant_id, livemode, id),
    CONSTRAINT ck_recalculation_documents_kind CHECK (kind IN ('invoice', 'credit_note', 'void')),
    CONSTRAINT ck_recalculation_documents_amount CHECK (amount <> 0 AND (kind = 'invoice') = (amount > 0)),
    CONSTRAINT ck_recalculation_documents_invoice_id CHECK ((kind = 'invoice') = (invoice_id IS NULL)),
    CONSTRAINT ck_recalculation_documents_delivered CHECK ((document_id IS NULL) = (delivered_at IS NULL))
);
CREATE INDEX ix_recalculation_documents_undelivered ON recalculation_documents (tenant_id, livemode, id) WHERE delivered_at IS NULL;
ALTER TABLE recalculation_documents ADD CONSTRAINT pk_recalculation_documents PRIMARY KEY (tenant_id, livemode, id);
COMMENT ON TABLE recalculation_documents IS 'What the invoicing service is asked for, word for word at every attempt.';

ALTER TABLE charges
    ALTER COLUMN billing_run_id DROP NOT NULL,
    ADD COLUMN recalculation_id UUID,
    DROP CONSTRAINT uq_charges_live,
    ADD CONSTRAINT uq_charges_live UNIQUE NULLS NOT DISTINCT (tenant_id, livemode, subscription_id, billing_period_id, charge_type, component_id, recalculation_id),
    ADD CONSTRAINT fk_charges_recalculations FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id, recalculation_id) REFERENCES recalculations (tenant_id, livemode, subscription_id, billing_period_id, id),
    ADD CONSTRAINT ck_charges_origin CHECK ((billing_run_id IS NULL) = (recalculation_id IS NOT NULL) AND coalesce(recalculation_id, calculation_run_id) = calculation_run_id);
-- A look-up by id must not scan the new key: so the primary key is made anew, after it.
ALTER TABLE ledger_entries DROP CONSTRAINT fk_ledger_entries_charges;
ALTER TABLE charges DROP CONSTRAINT pk_charges;
ALTER TABLE charges ADD CONSTRAINT pk_charges PRIMARY KEY (tenant_id, livemode, id);
ALTER TABLE ledger_entries ADD CONSTRAINT fk_ledger_entries_charges FOREIGN KEY(tenant_id, livemode, source_charge_id) REFERENCES charges (tenant_id, livemode, id);

ALTER TABLE calculations
    ALTER COLUMN billing_run_id DROP NOT NULL,
    ADD COLUMN recalculation_id UUID,
    DROP CONSTRAINT ck_calculations_calculation_type,
    ADD CONSTRAINT ck_calculations_calculation_type CHECK (calculation_type IN ('billing_run', 'interim_estimate', 'adjustment_recalculation')),
    DROP CONSTRAINT ck_calculations_status,
    ADD CONSTRAINT ck_calculations_status CHECK (status IN ('pending_confirmation', 'active', 'superseded', 'discarded')),
    ADD CONSTRAINT fk_calculations_recalculations FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id, recalculation_id) REFERENCES recalculations (tenant_id, livemode, subscription_id, billing_period_id, id),
    ADD CONSTRAINT ck_calculations_origin CHECK ((calculation_type = 'billing_run') = (billing_run_id IS NOT NULL) AND (calculation_type = 'adjustment_recalculation') = (recalculation_id IS NOT NULL) AND coalesce(recalculation_id, calculation_run_id) = calculation_run_id),
    ADD CONSTRAINT ck_calculations_estimate CHECK (status NOT IN ('pending_confirmation', 'discarded') OR calculation_type = 'interim_estimate');
ALTER TABLE calculations DROP CONSTRAINT pk_calculations;
CREATE INDEX ix_calculations_estimates ON calculations (tenant_id, livemode, subscription_id) WHERE status = 'pending_confirmation';
CREATE INDEX ix_calculations_period ON calculations (tenant_id, livemode, subscription_id, billing_period_id);
ALTER TABLE calculations ADD CONSTRAINT pk_calculations PRIMARY KEY (tenant_id, livemode, id);
ALTER TABLE calculations ADD CONSTRAINT fk_calculations_superseded_by FOREIGN KEY(tenant_id, livemode, superseded_by_calculation_id) REFERENCES calculations (tenant_id, livemode, id) DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE write_offs (
    tenant_id TEXT NOT NULL,
    livemode BOOLEAN NOT NULL,
    id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    billing_period_id UUID NOT NULL,
    amount BIGINT NOT NULL,
    recovered_amount BIGINT NOT NULL,
    currency CHAR(3) NOT NULL,
    reason TEXT NOT NULL,
    written_off_by_user_id TEXT,
    ledger_transaction_id UUID NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT fk_write_offs_billing_periods FOREIGN KEY(tenant_id, livemode, subscription_id, billing_period_id) REFERENCES billing_periods (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_write_offs_amount CHECK (amount > 0),
    CONSTRAINT fk_write_offs_ledger_transactions FOREIGN KEY(tenant_id, livemode, subscription_id, ledger_transaction_id) REFERENCES ledger_transactions (tenant_id, livemode, subscription_id, id),
    CONSTRAINT ck_write_offs_recovered_amount CHECK (recovered_amount BETWEEN 0 AND amount)
);
CREATE INDEX ix_write_offs_period ON write_offs (tenant_id, livemode, subscription_id, billing_period_id, id);
ALTER TABLE write_offs ADD CONSTRAINT pk_write_offs PRIMARY KEY (tenant_id, livemode, id);
COMMENT ON TABLE write_offs IS 'What somebody gave up collecting; recovered_amount counts as owed again.';

ALTER TABLE ledger_entries
    ADD COLUMN source_write_off_id UUID,
    DROP CONSTRAINT ck_ledger_entries_entry_type,
    ADD CONSTRAINT ck_ledger_entries_entry_type CHECK (CASE WHEN entry_type = 'usage_cost' THEN amount <= 0 AND source_usage_event_id IS NOT NULL AND billing_period_id IS NOT NULL AND usage_meter_id IS NOT NULL AND num_nonnulls(source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'usage_cost_corrected' THEN source_usage_event_id IS NOT NULL AND billing_period_id IS NOT NULL AND usage_meter_id IS NOT NULL AND num_nonnulls(source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'charge_billed' THEN amount <> 0 AND source_charge_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'payment_recognized' THEN amount > 0 AND source_payment_id IS NOT NULL AND source_usage_credit_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'credit_grant_recognized' THEN amount > 0 AND source_usage_credit_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'surplus_credited' THEN amount > 0 AND source_usage_credit_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'credit_applied_to_usage' THEN amount > 0 AND source_usage_credit_id IS NOT NULL AND source_credit_application_id IS NOT NULL AND billing_period_id IS NOT NULL AND usage_meter_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'credit_applied_to_charge' THEN amount > 0 AND source_usage_credit_id IS NOT NULL AND source_credit_application_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'credit_application_reversed' THEN amount < 0 AND source_usage_credit_id IS NOT NULL AND source_credit_application_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'credit_balance_adjusted' THEN amount <> 0 AND source_usage_credit_id IS NOT NULL AND source_credit_balance_adjustment_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_billing_period_calculation_id, source_payment_id, source_write_off_id) = 0 WHEN entry_type = 'credit_deficit_charged' THEN amount < 0 AND source_usage_credit_id IS NOT NULL AND source_credit_balance_adjustment_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_billing_period_calculation_id, source_payment_id, source_write_off_id) = 0 WHEN entry_type = 'credit_grant_expired' THEN amount < 0 AND source_usage_credit_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'payment_refunded' THEN amount < 0 AND source_payment_id IS NOT NULL AND source_refund_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_write_off_id) = 0 WHEN entry_type = 'refund_absorbed' THEN amount > 0 AND source_refund_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_write_off_id) = 0 WHEN entry_type = 'billing_adjustment' THEN amount <> 0 AND source_billing_period_calculation_id IS NOT NULL AND billing_period_id IS NOT NULL AND usage_meter_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_payment_id, source_refund_id, source_write_off_id) = 0 WHEN entry_type = 'receivable_written_off' THEN amount <> 0 AND source_write_off_id IS NOT NULL AND billing_period_id IS NOT NULL AND num_nonnulls(source_usage_event_id, source_charge_id, source_usage_credit_id, source_credit_application_id, source_credit_balance_adjustment_id, source_billing_period_calculation_id, source_payment_id, source_refund_id) = 0 ELSE false END);
CREATE INDEX ix_ledger_entries_posted_at ON ledger_entries USING brin (posted_at) WITH (pages_per_range = 32);
CREATE UNIQUE INDEX uq_ledger_entries_billing_adjustment ON ledger_entries (tenant_id, livemode, source_billing_period_calculation_id) WHERE entry_type IN ('billing_adjustment');
CREATE UNIQUE INDEX uq_ledger_entries_receivable_written_off ON ledger_entries (tenant_id, livemode, source_write_off_id) WHERE entry_type = 'receivable_written_off' AND amount > 0;
CREATE UNIQUE INDEX uq_ledger_entries_usage_cost_corrected ON ledger_entries (tenant_id, livemode, source_usage_event_id, ledger_transaction_id) WHERE entry_type IN ('usage_cost_corrected');
CREATE UNIQUE INDEX uq_ledger_entries_write_off_recovered ON ledger_entries (tenant_id, livemode, source_write_off_id, ledger_transaction_id) WHERE entry_type = 'receivable_written_off' AND amount < 0;
