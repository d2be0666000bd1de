"""Billing runs, and what they make."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from billing.domain.billing import CalculationStatus, CalculationType, ChargeType
from billing.domain.billing_runs import BillingRunResultStatus, BillingRunStatus, BillingRunType
from billing.domain.recalculations import RecalculationDocumentKind
from billing.store.tables.columns import (
    SCOPE,
    amount_column,
    count_column,
    currency_column,
    decimal_column,
    id_column,
    metadata,
    one_of,
    primary_key,
    references,
    scope_columns,
    text_column,
    time_column,
)

billing_runs = sa.Table(
    "billing_runs",
    metadata,
    *scope_columns(),
    id_column("id"),
    text_column("run_type"),
    text_column("status"),
    time_column("as_of"),
    time_column("started_at"),
    time_column("completed_at", nullable=True),
    count_column("result_count"),
    count_column("succeeded_count"),
    count_column("failed_count"),
    count_column("skipped_count"),
    primary_key("id"),
    one_of("run_type", BillingRunType),
    one_of("status", BillingRunStatus),
    sa.CheckConstraint("(status = 'running') = (completed_at IS NULL)", name="completed_at"),
    sa.CheckConstraint(
        "succeeded_count + failed_count + skipped_count <= result_count", name="counts"
    ),
    sa.Index(
        "ix_billing_runs_running", *SCOPE, "id", postgresql_where=sa.text("status = 'running'")
    ),
)

billing_run_results = sa.Table(
    "billing_run_results",
    metadata,
    *scope_columns(),
    id_column("billing_run_id"),
    id_column("id"),
    sa.Column("batch", sa.Integer, nullable=False),
    id_column("subscription_id"),
    id_column("billing_period_id"),
    text_column("status"),
    amount_column("total_amount", nullable=True),
    text_column("invoice_id", nullable=True),
    id_column("calculation_run_id", nullable=True),
    text_column("error_reason", nullable=True),
    text_column("error_message", nullable=True),
    id_column("taken_by_run_id", nullable=True),
    time_column("completed_at", nullable=True),
    primary_key("billing_run_id", "id"),
    sa.UniqueConstraint(*SCOPE, "billing_run_id", "billing_period_id"),
    references("billing_runs", ["billing_run_id"], ["id"]),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    one_of("status", BillingRunResultStatus),
    sa.CheckConstraint("(status = 'pending') = (completed_at IS NULL)", name="completed_at"),
    sa.CheckConstraint("(status = 'failed') = (error_reason IS NOT NULL)", name="error_reason"),
    sa.CheckConstraint("(status = 'skipped') = (taken_by_run_id IS NOT NULL)", name="taken_by"),
    # A period is in the hands of one run at a time: the database decides which.
    sa.Index(
        "uq_billing_run_results_pending_period",
        *SCOPE,
        "billing_period_id",
        unique=True,
        postgresql_where=sa.text("status = 'pending'"),
    ),
    sa.Index(
        "ix_billing_run_results_pending_batch",
        *SCOPE,
        "billing_run_id",
        "batch",
        postgresql_where=sa.text("status = 'pending'"),
    ),
)

charges = sa.Table(
    "charges",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("subscription_id"),
    id_column("billing_period_id"),
    id_column("billing_run_id", nullable=True),
    id_column("recalculation_id", nullable=True),
    id_column("calculation_run_id"),
    sa.Column("position", sa.Integer, nullable=False),
    text_column("charge_type"),
    id_column("component_id", nullable=True),
    text_column("description"),
    decimal_column("quantity"),
    decimal_column("unit_price"),
    amount_column("amount"),
    currency_column(),
    time_column("created_at"),
    primary_key("id"),
    sa.UniqueConstraint(
        *SCOPE,
        "subscription_id",
        "billing_period_id",
        "charge_type",
        "component_id",
        "recalculation_id",
        name="uq_charges_live",
        postgresql_nulls_not_distinct=True,
    ),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    references(
        "recalculations",
        ["subscription_id", "billing_period_id", "recalculation_id"],
        ["subscription_id", "billing_period_id", "id"],
    ),
    one_of("charge_type", ChargeType),
    sa.CheckConstraint(
        "(billing_run_id IS NULL) = (recalculation_id IS NOT NULL)"
        " AND coalesce(recalculation_id, calculation_run_id) = calculation_run_id",
        name="origin",
    ),
    sa.CheckConstraint("(charge_type = 'usage') = (component_id IS NOT NULL)", name="component_id"),
)

calculations = sa.Table(
    "calculations",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("calculation_run_id"),
    id_column("billing_run_id", nullable=True),
    id_column("recalculation_id", nullable=True),
    id_column("subscription_id"),
    id_column("billing_period_id"),
    id_column("component_id"),
    id_column("usage_meter_id"),
    time_column("calculated_at"),
    text_column("calculation_type"),
    decimal_column("total_quantity"),
    decimal_column("billable_quantity"),
    decimal_column("unit_price"),
    amount_column("total_raw_usage_amount"),
    amount_column("credits_applied_amount"),
    amount_column("net_billed_amount"),
    currency_column(),
    text_column("status"),
    id_column("superseded_by_calculation_id", nullable=True),
    text_column("source_invoice_id", nullable=True),
    text_column("source_credit_note_id", nullable=True),
    text_column("notes", nullable=True),
    primary_key("id"),
    sa.UniqueConstraint(*SCOPE, "calculation_run_id", "component_id"),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    references(
        "recalculations",
        ["subscription_id", "billing_period_id", "recalculation_id"],
        ["subscription_id", "billing_period_id", "id"],
    ),
    sa.ForeignKeyConstraint(
        [*SCOPE, "superseded_by_calculation_id"],
        [f"calculations.{column}" for column in (*SCOPE, "id")],
        name="fk_calculations_superseded_by",
        # The one that is replaced names its successor before that one is written.
        deferrable=True,
        initially="DEFERRED",
    ),
    one_of("calculation_type", CalculationType),
    one_of("status", CalculationStatus),
    sa.CheckConstraint(
        "(calculation_type = 'billing_run') = (billing_run_id IS NOT NULL)"
        " AND (calculation_type = 'adjustment_recalculation') = (recalculation_id IS NOT NULL)"
        " AND coalesce(recalculation_id, calculation_run_id) = calculation_run_id",
        name="origin",
    ),
    sa.CheckConstraint(
        "status NOT IN ('pending_confirmation', 'discarded')"
        " OR calculation_type = 'interim_estimate'",
        name="estimate",
    ),
    sa.CheckConstraint(
        "(status = 'superseded') = (superseded_by_calculation_id IS NOT NULL)", name="superseded"
    ),
    sa.CheckConstraint(
        "net_billed_amount = total_raw_usage_amount - credits_applied_amount", name="net"
    ),
    sa.Index(
        "uq_calculations_active",
        *SCOPE,
        "subscription_id",
        "component_id",
        "billing_period_id",
        unique=True,
        postgresql_where=sa.text("status = 'active'"),
    ),
    sa.Index(
        "ix_calculations_estimates",
        *SCOPE,
        "subscription_id",
        postgresql_where=sa.text("status = 'pending_confirmation'"),
    ),
    sa.Index("ix_calculations_period", *SCOPE, "subscription_id", "billing_period_id"),
)

recalculations = sa.Table(
    "recalculations",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("subscription_id"),
    id_column("billing_period_id"),
    id_column("ledger_transaction_id"),
    currency_column(),
    text_column("reason"),
    amount_column("raw_change_amount"),
    amount_column("credits_change_amount"),
    amount_column("net_change_amount"),
    amount_column("recovered_amount"),
    amount_column("released_amount"),
    amount_column("surplus_amount"),
    time_column("created_at"),
    primary_key("id"),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    references(
        "ledger_transactions",
        ["subscription_id", "ledger_transaction_id"],
        ["subscription_id", "id"],
    ),
    sa.CheckConstraint(
        "net_change_amount = raw_change_amount - credits_change_amount", name="net_change"
    ),
    sa.CheckConstraint(
        "recovered_amount >= 0 AND released_amount >= 0 AND surplus_amount >= 0", name="restored"
    ),
    # What charges and calculations refer to, and what lists read.
    sa.UniqueConstraint(*SCOPE, "subscription_id", "billing_period_id", "id"),
    comment="Changes of billed periods; the id is the calculation run's.",
)

recalculation_documents = sa.Table(
    "recalculation_documents",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("recalculation_id"),
    sa.Column("position", sa.Integer, nullable=False),
    text_column("kind"),
    amount_column("amount"),
    currency_column(),
    text_column("invoice_id", nullable=True),
    sa.Column("request", JSONB, nullable=False),
    text_column("document_id", nullable=True),
    time_column("delivered_at", nullable=True),
    text_column("failure", nullable=True),
    time_column("created_at"),
    primary_key("id"),
    sa.UniqueConstraint(*SCOPE, "recalculation_id", "position"),
    references("recalculations", ["recalculation_id"], ["id"]),
    one_of("kind", RecalculationDocumentKind),
    sa.CheckConstraint("amount <> 0 AND (kind = 'invoice') = (amount > 0)", name="amount"),
    sa.CheckConstraint("(kind = 'invoice') = (invoice_id IS NULL)", name="invoice_id"),
    sa.CheckConstraint("(document_id IS NULL) = (delivered_at IS NULL)", name="delivered"),
    sa.Index(
        "ix_recalculation_documents_undelivered",
        *SCOPE,
        "id",
        postgresql_where=sa.text("delivered_at IS NULL"),
    ),
    comment="What the invoicing service is asked for, word for word at every attempt.",
)

invoice_requests = sa.Table(
    "invoice_requests",
    metadata,
    *scope_columns(),
    id_column("billing_period_id"),
    id_column("subscription_id"),
    sa.Column("request", JSONB, nullable=False),
    time_column("created_at"),
    primary_key("billing_period_id"),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    comment="What the invoicing service is asked for, word for word at every attempt.",
)
