"""Usage events and their running aggregates."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from billing.domain.usage import UsageEventDisposition
from billing.store.tables.columns import (
    SCOPE,
    amount_column,
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
    one_of("disposition", UsageEventDisposition),
    sa.CheckConstraint("quantity >= 0", name="quantity"),
)
