"""Subscriptions and their billing periods."""

import sqlalchemy as sa

from billing.domain.periods import BillingPeriodStatus
from billing.domain.subscriptions import CreditApplicationMode, SubscriptionStatus
from billing.store.tables.columns import (
    SCOPE,
    amount_column,
    currency_column,
    id_column,
    metadata,
    one_of,
    primary_key,
    references,
    scope_columns,
    text_column,
    time_column,
)

subscriptions = sa.Table(
    "subscriptions",
    metadata,
    *scope_columns(),
    id_column("id"),
    text_column("customer_id"),
    id_column("plan_id"),
    currency_column(),
    sa.Column(
        "credit_application", sa.Text, nullable=False, server_default=sa.text("'at_billing'")
    ),
    text_column("status"),
    time_column("started_at"),
    id_column("receivable_account_id"),
    id_column("current_period_id"),
    time_column("current_period_start"),
    time_column("current_period_end"),
    id_column("plan_version_id"),
    time_column("cancel_at", nullable=True),
    time_column("paused_at", nullable=True),
    time_column("cancelled_at", nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    primary_key("id"),
    references("plans", ["plan_id"], ["id"]),
    references("ledger_accounts", ["receivable_account_id"], ["id"]),
    one_of("credit_application", CreditApplicationMode),
    one_of("status", SubscriptionStatus),
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
    *scope_columns(),
    id_column("id"),
    id_column("subscription_id"),
    id_column("plan_version_id"),
    time_column("anchor_at"),
    time_column("period_start"),
    time_column("period_end"),
    text_column("status"),
    amount_column("total_amount", nullable=True),
    sa.Column("receivable_amount", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    amount_column("closing_receivable_amount", nullable=True),
    time_column("billed_at", nullable=True),
    time_column("invoiced_at", nullable=True),
    text_column("invoice_id", nullable=True),
    primary_key("id"),
    sa.UniqueConstraint(*SCOPE, "subscription_id", "period_start"),
    # What usage and charges refer to: the period together with its subscription.
    sa.UniqueConstraint(*SCOPE, "subscription_id", "id"),
    references("subscriptions", ["subscription_id"], ["id"]),
    references("plan_versions", ["plan_version_id"], ["id"]),
    one_of("status", BillingPeriodStatus),
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
        "total_amount: what was invoiced; receivable_amount: posted receivable of the period, of an"
        " open one without its usage; closing_receivable_amount: receivable of the"
        " subscription's periods up to this one, kept true on the last closed one: a snapshot for"
        " balances."
    ),
)
