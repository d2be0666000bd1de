"""Billing runs, and what they make."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from billing.domain.billing import CalculationType, ChargeType
from billing.domain.billing_runs import BillingRunResultStatus, BillingRunStatus, BillingRunType
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
    id_column("billing_run_id"),
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
        name="uq_charges_live",
        postgresql_nulls_not_distinct=True,
    ),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    one_of("charge_type", ChargeType),
    sa.CheckConstraint("(charge_type = 'usage') = (component_id IS NOT NULL)", name="component_id"),
)

calculations = sa.Table(
    "calculations",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("calculation_run_id"),
    id_column("billing_run_id"),
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
    one_of("calculation_type", CalculationType),
    sa.CheckConstraint("status IN ('active', 'superseded')", name="status"),
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
