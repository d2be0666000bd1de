"""The tables, as the code sees them. ``migrations/`` makes them; a test holds the two together.

Every key starts with ``(tenant_id, livemode)``: no reference can cross tenants or join live with
test data, and the schema can be distributed by ``tenant_id`` as it is. What SQLAlchemy cannot say
(row security, immutability, the accounts of an entry) is in the migrations.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from billing.domain.billing import CalculationType, ChargeType
from billing.domain.billing_runs import BillingRunResultStatus, BillingRunStatus, BillingRunType
from billing.domain.catalog import IntervalUnit, UsageAggregation
from billing.domain.ledger import (
    LedgerAccountKind,
    LedgerEntryStatus,
    LedgerEntryType,
    LedgerSourceType,
)
from billing.domain.periods import BillingPeriodStatus
from billing.domain.subscriptions import SubscriptionStatus
from billing.domain.usage import UsageEventDisposition

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

SCOPE = ("tenant_id", "livemode")

_Column = sa.Column[Any]


def _scope() -> list[_Column]:
    return [
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("livemode", sa.Boolean, nullable=False),
    ]


def _id(name: str, *, nullable: bool = False) -> _Column:
    return sa.Column(name, sa.Uuid, nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> _Column:
    return sa.Column(name, sa.Text, nullable=nullable)


def _amount(name: str, *, nullable: bool = False) -> _Column:
    """An amount in minor units."""
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _decimal(name: str) -> _Column:
    return sa.Column(name, sa.Numeric, nullable=False)


def _time(name: str, *, nullable: bool = False) -> _Column:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=nullable)


def _count(name: str) -> _Column:
    return sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0"))


def _currency() -> _Column:
    return sa.Column("currency", sa.CHAR(3), nullable=False)


def _key(*columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*SCOPE, *columns)


def _one_of(column: str, values: Iterable[StrEnum]) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=column)


def _references(table: str, columns: list[str], referred: list[str]) -> sa.ForeignKeyConstraint:
    """A foreign key within the scope."""
    return sa.ForeignKeyConstraint(
        [*SCOPE, *columns], [f"{table}.{column}" for column in (*SCOPE, *referred)]
    )


tenants = sa.Table(
    "tenants",
    metadata,
    *_scope(),
    _time("created_at"),
    _key(),
    comment="Every owner of data; outside row security, so that workers find them.",
)

idempotent_requests = sa.Table(
    "idempotent_requests",
    metadata,
    *_scope(),
    _text("method"),
    _text("request_id"),
    sa.Column("request_hash", sa.LargeBinary, nullable=False),
    sa.Column("response", JSONB, nullable=False),
    _time("created_at"),
    _key("method", "request_id"),
    comment="The answers of successful mutations, for ever.",
)

usage_meters = sa.Table(
    "usage_meters",
    metadata,
    *_scope(),
    _id("id"),
    _text("code"),
    _text("name"),
    _text("aggregation"),
    _time("created_at"),
    _key("id"),
    sa.UniqueConstraint(*SCOPE, "code"),
    _one_of("aggregation", UsageAggregation),
)

plans = sa.Table(
    "plans",
    metadata,
    *_scope(),
    _id("id"),
    _currency(),
    _time("created_at"),
    _key("id"),
)

plan_versions = sa.Table(
    "plan_versions",
    metadata,
    *_scope(),
    _id("id"),
    _id("plan_id"),
    sa.Column("version", sa.Integer, nullable=False),
    _text("name"),
    _amount("base_price_amount"),
    _text("interval_unit"),
    sa.Column("interval_count", sa.Integer, nullable=False),
    _time("created_at"),
    _key("id"),
    sa.UniqueConstraint(*SCOPE, "plan_id", "version"),
    _references("plans", ["plan_id"], ["id"]),
    _one_of("interval_unit", IntervalUnit),
    sa.CheckConstraint("interval_count > 0", name="interval_count"),
    sa.CheckConstraint("base_price_amount >= 0", name="base_price_amount"),
    comment="Published states of plans; they never change.",
)

components = sa.Table(
    "components",
    metadata,
    *_scope(),
    _id("id"),
    _id("plan_version_id"),
    sa.Column("position", sa.Integer, nullable=False),
    _id("usage_meter_id"),
    _text("name"),
    _decimal("unit_price"),
    _decimal("included_units"),
    _key("id"),
    sa.UniqueConstraint(*SCOPE, "plan_version_id", "usage_meter_id"),
    _references("plan_versions", ["plan_version_id"], ["id"]),
    _references("usage_meters", ["usage_meter_id"], ["id"]),
    sa.CheckConstraint("unit_price >= 0", name="unit_price"),
    sa.CheckConstraint("included_units >= 0", name="included_units"),
)

ledger_accounts = sa.Table(
    "ledger_accounts",
    metadata,
    *_scope(),
    _id("id"),
    _text("kind"),
    _currency(),
    _id("subscription_id", nullable=True),
    _time("created_at"),
    _key("id"),
    sa.UniqueConstraint(
        *SCOPE, "kind", "currency", "subscription_id", postgresql_nulls_not_distinct=True
    ),
    _one_of("kind", LedgerAccountKind),
    sa.CheckConstraint(
        "(kind = 'receivable') = (subscription_id IS NOT NULL)", name="subscription_id"
    ),
)

subscriptions = sa.Table(
    "subscriptions",
    metadata,
    *_scope(),
    _id("id"),
    _text("customer_id"),
    _id("plan_id"),
    _currency(),
    _text("status"),
    _time("started_at"),
    _id("receivable_account_id"),
    _id("current_period_id"),
    _time("current_period_start"),
    _time("current_period_end"),
    _id("plan_version_id"),
    _time("cancel_at", nullable=True),
    _time("paused_at", nullable=True),
    _time("cancelled_at", nullable=True),
    _time("created_at"),
    _time("updated_at"),
    _key("id"),
    _references("plans", ["plan_id"], ["id"]),
    _references("ledger_accounts", ["receivable_account_id"], ["id"]),
    _one_of("status", SubscriptionStatus),
    sa.CheckConstraint("(status = 'paused') = (paused_at IS NOT NULL)", name="paused_at"),
    sa.CheckConstraint("(status = 'cancelled') = (cancelled_at IS NOT NULL)", name="cancelled_at"),
    sa.Index(
        "ix_subscriptions_due",
        *SCOPE,
        "current_period_end",
        postgresql_where=sa.text("status = 'active'"),
    ),
    sa.Index("ix_subscriptions_customer", *SCOPE, "customer_id"),
)

billing_periods = sa.Table(
    "billing_periods",
    metadata,
    *_scope(),
    _id("id"),
    _id("subscription_id"),
    _id("plan_version_id"),
    _time("anchor_at"),
    _time("period_start"),
    _time("period_end"),
    _text("status"),
    _amount("total_amount", nullable=True),
    _amount("closing_receivable_amount", nullable=True),
    _time("billed_at", nullable=True),
    _time("invoiced_at", nullable=True),
    _text("invoice_id", nullable=True),
    _key("id"),
    sa.UniqueConstraint(*SCOPE, "subscription_id", "period_start"),
    # What usage and charges refer to: the period together with its subscription.
    sa.UniqueConstraint(*SCOPE, "subscription_id", "id"),
    _references("subscriptions", ["subscription_id"], ["id"]),
    _references("plan_versions", ["plan_version_id"], ["id"]),
    _one_of("status", BillingPeriodStatus),
    sa.CheckConstraint("period_start < period_end", name="span"),
    sa.CheckConstraint(
        "(status = 'open') = (billed_at IS NULL)"
        " AND (status = 'open') = (total_amount IS NULL)"
        " AND (status = 'open') = (closing_receivable_amount IS NULL)"
        " AND (status = 'invoiced') = (invoiced_at IS NOT NULL)",
        name="facts",
    ),
    sa.Index(
        "ix_billing_periods_not_invoiced",
        *SCOPE,
        "id",
        postgresql_where=sa.text("status = 'billed'"),
    ),
    comment=(
        "total_amount: posted receivable of the period; closing_receivable_amount: the same summed"
        " over the subscription's periods up to this one, a snapshot for balances."
    ),
)

subscription_usage_meters = sa.Table(
    "subscription_usage_meters",
    metadata,
    *_scope(),
    _id("id"),
    _id("subscription_id"),
    _id("billing_period_id"),
    _id("component_id"),
    _id("usage_meter_id"),
    _decimal("quantity"),
    _amount("rated_amount"),
    sa.Column("event_count", sa.BigInteger, nullable=False),
    _time("updated_at"),
    _key("id"),
    sa.UniqueConstraint(*SCOPE, "billing_period_id", "component_id"),
    # One key for events covers subscription, period, component and meter.
    sa.UniqueConstraint(*SCOPE, "id", "subscription_id"),
    _references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    _references("components", ["component_id"], ["id"]),
    sa.CheckConstraint("quantity >= 0", name="quantity"),
    sa.CheckConstraint("rated_amount >= 0", name="rated_amount"),
)

usage_events = sa.Table(
    "usage_events",
    metadata,
    *_scope(),
    _id("id"),
    _text("idempotency_key"),
    sa.Column("payload_hash", sa.LargeBinary, nullable=False),
    _id("subscription_id"),
    _id("subscription_usage_meter_id"),
    _decimal("quantity"),
    _time("event_timestamp"),
    sa.Column("properties", JSONB, nullable=True),
    _text("disposition"),
    _time("received_at"),
    _key("id"),
    sa.UniqueConstraint(*SCOPE, "idempotency_key"),
    _references(
        "subscription_usage_meters",
        ["subscription_usage_meter_id", "subscription_id"],
        ["id", "subscription_id"],
    ),
    _one_of("disposition", UsageEventDisposition),
    sa.CheckConstraint("quantity >= 0", name="quantity"),
)

billing_runs = sa.Table(
    "billing_runs",
    metadata,
    *_scope(),
    _id("id"),
    _text("run_type"),
    _text("status"),
    _time("as_of"),
    _time("started_at"),
    _time("completed_at", nullable=True),
    _count("result_count"),
    _count("succeeded_count"),
    _count("failed_count"),
    _count("skipped_count"),
    _key("id"),
    _one_of("run_type", BillingRunType),
    _one_of("status", BillingRunStatus),
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
    *_scope(),
    _id("billing_run_id"),
    _id("id"),
    sa.Column("batch", sa.Integer, nullable=False),
    _id("subscription_id"),
    _id("billing_period_id"),
    _text("status"),
    _amount("total_amount", nullable=True),
    _text("invoice_id", nullable=True),
    _id("calculation_run_id", nullable=True),
    _text("error_reason", nullable=True),
    _text("error_message", nullable=True),
    _id("taken_by_run_id", nullable=True),
    _time("completed_at", nullable=True),
    _key("billing_run_id", "id"),
    sa.UniqueConstraint(*SCOPE, "billing_run_id", "billing_period_id"),
    _references("billing_runs", ["billing_run_id"], ["id"]),
    _references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    _one_of("status", BillingRunResultStatus),
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
    *_scope(),
    _id("id"),
    _id("subscription_id"),
    _id("billing_period_id"),
    _id("billing_run_id"),
    _id("calculation_run_id"),
    sa.Column("position", sa.Integer, nullable=False),
    _text("charge_type"),
    _id("component_id", nullable=True),
    _text("description"),
    _decimal("quantity"),
    _decimal("unit_price"),
    _amount("amount"),
    _currency(),
    _time("created_at"),
    _key("id"),
    sa.UniqueConstraint(
        *SCOPE,
        "subscription_id",
        "billing_period_id",
        "charge_type",
        "component_id",
        name="uq_charges_live",
        postgresql_nulls_not_distinct=True,
    ),
    _references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    _one_of("charge_type", ChargeType),
    sa.CheckConstraint("(charge_type = 'usage') = (component_id IS NOT NULL)", name="component_id"),
)

calculations = sa.Table(
    "calculations",
    metadata,
    *_scope(),
    _id("id"),
    _id("calculation_run_id"),
    _id("billing_run_id"),
    _id("subscription_id"),
    _id("billing_period_id"),
    _id("component_id"),
    _id("usage_meter_id"),
    _time("calculated_at"),
    _text("calculation_type"),
    _decimal("total_quantity"),
    _decimal("billable_quantity"),
    _decimal("unit_price"),
    _amount("total_raw_usage_amount"),
    _amount("credits_applied_amount"),
    _amount("net_billed_amount"),
    _currency(),
    _text("status"),
    _id("superseded_by_calculation_id", nullable=True),
    _text("source_invoice_id", nullable=True),
    _text("source_credit_note_id", nullable=True),
    _text("notes", nullable=True),
    _key("id"),
    sa.UniqueConstraint(*SCOPE, "calculation_run_id", "component_id"),
    _references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    _one_of("calculation_type", CalculationType),
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
    *_scope(),
    _id("billing_period_id"),
    _id("subscription_id"),
    sa.Column("request", JSONB, nullable=False),
    _time("created_at"),
    _key("billing_period_id"),
    _references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    comment="What the invoicing service is asked for, word for word at every attempt.",
)

ledger_transactions = sa.Table(
    "ledger_transactions",
    metadata,
    *_scope(),
    _id("id"),
    _id("subscription_id"),
    _text("initiating_source_type"),
    _id("initiating_source_id"),
    _text("description"),
    sa.Column("metadata", JSONB, nullable=True),
    _time("created_at"),
    _key("id"),
    # What entries refer to: the transaction together with its subscription.
    sa.UniqueConstraint(*SCOPE, "subscription_id", "id"),
    _references("subscriptions", ["subscription_id"], ["id"]),
    _one_of("initiating_source_type", LedgerSourceType),
)

LEDGER_ENTRY_SOURCES = (
    "source_usage_event_id",
    "source_charge_id",
    "source_usage_credit_id",
    "source_credit_application_id",
    "source_credit_balance_adjustment_id",
    "source_billing_period_calculation_id",
    "source_payment_id",
    "source_refund_id",
)


def _entry_rule(entry_type: LedgerEntryType, sign: str, *required: str) -> str:
    """Sign and sources of one entry type: the required are there, all others are not."""
    others = [source for source in LEDGER_ENTRY_SOURCES if source not in required]
    needed = " AND ".join(f"{column} IS NOT NULL" for column in required)
    return (
        f"WHEN entry_type = '{entry_type}' THEN amount {sign} 0 AND {needed}"
        f" AND num_nonnulls({', '.join(others)}) = 0"
    )


_ENTRY_RULES = " ".join(
    [
        "CASE",
        _entry_rule(
            LedgerEntryType.USAGE_COST,
            "<=",
            "source_usage_event_id",
            "billing_period_id",
            "usage_meter_id",
        ),
        _entry_rule(LedgerEntryType.CHARGE_BILLED, "<>", "source_charge_id", "billing_period_id"),
        "ELSE false END",
    ]
)

ledger_entries = sa.Table(
    "ledger_entries",
    metadata,
    *_scope(),
    _id("subscription_id"),
    _id("ledger_transaction_id"),
    _id("id"),
    _text("entry_type"),
    _text("status"),
    _amount("amount"),
    _currency(),
    _id("debit_account_id"),
    _id("credit_account_id"),
    *[_id(source, nullable=True) for source in LEDGER_ENTRY_SOURCES],
    _id("applied_to_ledger_entry_id", nullable=True),
    _id("billing_period_id", nullable=True),
    _id("usage_meter_id", nullable=True),
    _id("calculation_run_id", nullable=True),
    _text("description"),
    sa.Column("metadata", JSONB, nullable=True),
    _time("entry_timestamp"),
    _time("posted_at", nullable=True),
    _time("discarded_at", nullable=True),
    # In this order one index serves a subscription's entries, in the order they were made, and
    # the entries of a transaction.
    _key("subscription_id", "ledger_transaction_id", "id"),
    _references(
        "ledger_transactions",
        ["subscription_id", "ledger_transaction_id"],
        ["subscription_id", "id"],
    ),
    _references("usage_events", ["source_usage_event_id"], ["id"]),
    _references("charges", ["source_charge_id"], ["id"]),
    _one_of("status", LedgerEntryStatus),
    sa.CheckConstraint(
        "(status = 'posted') = (posted_at IS NOT NULL)"
        " AND (discarded_at IS NULL OR status = 'pending')",
        name="lifecycle",
    ),
    sa.CheckConstraint("debit_account_id <> credit_account_id", name="two_accounts"),
    sa.CheckConstraint(_ENTRY_RULES, name="entry_type"),
    sa.Index(
        "uq_ledger_entries_usage_cost",
        *SCOPE,
        "source_usage_event_id",
        unique=True,
        postgresql_where=sa.text("entry_type = 'usage_cost'"),
    ),
    sa.Index(
        "uq_ledger_entries_charge_billed",
        *SCOPE,
        "source_charge_id",
        unique=True,
        postgresql_where=sa.text("entry_type = 'charge_billed'"),
    ),
)
