"""Payments, refunds, write-offs."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from billing.domain.payments import (
    PaymentPurpose,
    PaymentStatus,
    RefundCreditPolicy,
    RefundStatus,
)
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

payments = sa.Table(
    "payments",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("subscription_id"),
    text_column("purpose"),
    amount_column("amount"),
    currency_column(),
    text_column("status"),
    id_column("billing_period_id", nullable=True),
    text_column("invoice_id", nullable=True),
    sa.Column("payment_method_details", JSONB, nullable=True),
    text_column("processor_transaction_id", nullable=True),
    time_column("processed_at", nullable=True),
    text_column("failure_reason", nullable=True),
    id_column("usage_credit_id", nullable=True),
    sa.Column("metadata", JSONB, nullable=True),
    time_column("created_at"),
    time_column("updated_at"),
    primary_key("id"),
    # What refunds refer to, and what lists read.
    sa.UniqueConstraint(*SCOPE, "subscription_id", "id"),
    references("subscriptions", ["subscription_id"], ["id"]),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    references("usage_credits", ["subscription_id", "usage_credit_id"], ["subscription_id", "id"]),
    one_of("purpose", PaymentPurpose),
    one_of("status", PaymentStatus),
    sa.CheckConstraint("amount > 0", name="amount"),
    sa.CheckConstraint(
        "(purpose = 'period_settlement') = (billing_period_id IS NOT NULL)",
        name="billing_period_id",
    ),
    sa.CheckConstraint(
        "(status = 'succeeded') = (usage_credit_id IS NOT NULL)"
        " AND (status = 'succeeded') = (processor_transaction_id IS NOT NULL)"
        " AND (status = 'succeeded') = (processed_at IS NOT NULL)"
        " AND (status = 'failed') = (failure_reason IS NOT NULL)",
        name="facts",
    ),
    # The same money is taken once.
    sa.Index(
        "uq_payments_processor_transaction",
        *SCOPE,
        "processor_transaction_id",
        unique=True,
        postgresql_where=sa.text("processor_transaction_id IS NOT NULL"),
    ),
    sa.Index(
        "uq_payments_usage_credit",
        *SCOPE,
        "usage_credit_id",
        unique=True,
        postgresql_where=sa.text("usage_credit_id IS NOT NULL"),
    ),
)

refunds = sa.Table(
    "refunds",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("payment_id"),
    id_column("subscription_id"),
    amount_column("amount"),
    currency_column(),
    text_column("reason", nullable=True),
    text_column("status"),
    text_column("credit_policy"),
    amount_column("clawed_back_amount"),
    amount_column("reversed_amount"),
    amount_column("deficit_amount"),
    time_column("refund_processed_at", nullable=True),
    text_column("gateway_refund_id", nullable=True),
    text_column("failure_reason", nullable=True),
    text_column("notes", nullable=True),
    text_column("initiated_by_user_id", nullable=True),
    id_column("ledger_transaction_id"),
    time_column("created_at"),
    time_column("updated_at"),
    primary_key("id"),
    # What adjustments refer to, and what lists read.
    sa.UniqueConstraint(*SCOPE, "subscription_id", "id"),
    references("payments", ["subscription_id", "payment_id"], ["subscription_id", "id"]),
    one_of("status", RefundStatus),
    one_of("credit_policy", RefundCreditPolicy),
    sa.CheckConstraint("amount > 0", name="amount"),
    sa.CheckConstraint(
        "clawed_back_amount >= 0 AND reversed_amount >= 0 AND deficit_amount >= 0"
        " AND clawed_back_amount + reversed_amount + deficit_amount <= amount",
        name="parts",
    ),
    sa.CheckConstraint(
        "(status = 'succeeded') = (gateway_refund_id IS NOT NULL)"
        " AND (status = 'succeeded') = (refund_processed_at IS NOT NULL)"
        " AND (status = 'failed') = (failure_reason IS NOT NULL)",
        name="facts",
    ),
    sa.Index("ix_refunds_payment", *SCOPE, "payment_id"),
    # The same money goes back once.
    sa.Index(
        "uq_refunds_gateway_refund",
        *SCOPE,
        "gateway_refund_id",
        unique=True,
        postgresql_where=sa.text("gateway_refund_id IS NOT NULL"),
    ),
)

write_offs = sa.Table(
    "write_offs",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("subscription_id"),
    id_column("billing_period_id"),
    amount_column("amount"),
    amount_column("recovered_amount"),
    currency_column(),
    text_column("reason"),
    text_column("written_off_by_user_id", nullable=True),
    id_column("ledger_transaction_id"),
    time_column("created_at"),
    time_column("updated_at"),
    primary_key("id"),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    sa.CheckConstraint("amount > 0", name="amount"),
    references(
        "ledger_transactions",
        ["subscription_id", "ledger_transaction_id"],
        ["subscription_id", "id"],
    ),
    sa.CheckConstraint("recovered_amount BETWEEN 0 AND amount", name="recovered_amount"),
    sa.Index("ix_write_offs_period", *SCOPE, "subscription_id", "billing_period_id", "id"),
    comment="What somebody gave up collecting; recovered_amount counts as owed again.",
)
