"""Usage events and their running aggregates."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from billing.domain.usage import UsageEventDisposition
from billing.domain.usage_corrections import UsageEventCorrectionType
from billing.store.tables.columns import (
    SCOPE,
    amount_column,
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

subscription_usage_meters = sa.Table(
    "subscription_usage_meters",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("subscription_id"),
    id_column("billing_period_id"),
    id_column("component_id"),
    id_column("usage_meter_id"),
    decimal_column("quantity"),
    amount_column("rated_amount"),
    sa.Column("event_count", sa.BigInteger, nullable=False),
    sa.Column("pending_quantity", sa.Numeric, nullable=False, server_default=sa.text("0")),
    sa.Column("pending_amount", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("pending_event_count", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    time_column("updated_at"),
    primary_key("id"),
    sa.UniqueConstraint(*SCOPE, "billing_period_id", "component_id"),
    # One key for events covers subscription, period, component and meter.
    sa.UniqueConstraint(*SCOPE, "id", "subscription_id"),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    references("components", ["component_id"], ["id"]),
    sa.CheckConstraint("quantity >= 0", name="quantity"),
    sa.CheckConstraint("rated_amount >= 0", name="rated_amount"),
    sa.CheckConstraint(
        "quantity + pending_quantity >= 0 AND rated_amount + pending_amount >= 0"
        " AND pending_event_count >= 0",
        name="pending",
    ),
    comment=(
        "pending_*: held late events and corrections of a billed period, which wait for a"
        " recalculation."
    ),
)

usage_events = sa.Table(
    "usage_events",
    metadata,
    *scope_columns(),
    id_column("id"),
    text_column("idempotency_key"),
    sa.Column("payload_hash", sa.LargeBinary, nullable=False),
    id_column("subscription_id"),
    id_column("subscription_usage_meter_id"),
    decimal_column("quantity"),
    time_column("event_timestamp"),
    sa.Column("properties", JSONB, nullable=True),
    text_column("disposition"),
    time_column("received_at"),
    primary_key("id"),
    sa.UniqueConstraint(*SCOPE, "idempotency_key"),
    references(
        "subscription_usage_meters",
        ["subscription_usage_meter_id", "subscription_id"],
        ["id", "subscription_id"],
    ),
    # What a recalculation looks for: held events are few.
    sa.Index(
        "ix_usage_events_held",
        *SCOPE,
        "subscription_usage_meter_id",
        postgresql_where=sa.text("disposition = 'held'"),
    ),
    one_of("disposition", UsageEventDisposition),
    sa.CheckConstraint("quantity >= 0", name="quantity"),
)

usage_event_corrections = sa.Table(
    "usage_event_corrections",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("subscription_id"),
    id_column("billing_period_id"),
    id_column("usage_event_id"),
    text_column("correction_type"),
    decimal_column("quantity_before"),
    decimal_column("quantity_after"),
    amount_column("cost_change_amount"),
    currency_column(),
    text_column("reason"),
    text_column("corrected_by_user_id", nullable=True),
    id_column("ledger_transaction_id"),
    time_column("corrected_at"),
    primary_key("id"),
    references("usage_events", ["usage_event_id"], ["id"]),
    references(
        "billing_periods", ["subscription_id", "billing_period_id"], ["subscription_id", "id"]
    ),
    references(
        "ledger_transactions",
        ["subscription_id", "ledger_transaction_id"],
        ["subscription_id", "id"],
    ),
    # A void is for good.
    sa.Index(
        "uq_usage_event_corrections_void",
        *SCOPE,
        "usage_event_id",
        unique=True,
        postgresql_where=sa.text("correction_type = 'void'"),
    ),
    one_of("correction_type", UsageEventCorrectionType),
    sa.CheckConstraint("quantity_before >= 0 AND quantity_after >= 0", name="quantities"),
    sa.CheckConstraint("correction_type <> 'void' OR quantity_after = 0", name="void"),
    sa.Index("ix_usage_event_corrections_event", *SCOPE, "usage_event_id", "id"),
    sa.Index(
        "ix_usage_event_corrections_period", *SCOPE, "subscription_id", "billing_period_id", "id"
    ),
    comment="A correction's entry has its id: pending in a billed period, until a recalculation.",
)
