"""Usage meters, plans, versions, components."""

import sqlalchemy as sa

from billing.domain.catalog import IntervalUnit, LateUsagePolicy, UsageAggregation
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

usage_meters = sa.Table(
    "usage_meters",
    metadata,
    *scope_columns(),
    id_column("id"),
    text_column("code"),
    text_column("name"),
    text_column("aggregation"),
    time_column("created_at"),
    primary_key("id"),
    sa.UniqueConstraint(*SCOPE, "code"),
    one_of("aggregation", UsageAggregation),
)

plans = sa.Table(
    "plans",
    metadata,
    *scope_columns(),
    id_column("id"),
    currency_column(),
    time_column("created_at"),
    primary_key("id"),
)

plan_versions = sa.Table(
    "plan_versions",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("plan_id"),
    sa.Column("version", sa.Integer, nullable=False),
    text_column("name"),
    amount_column("base_price_amount"),
    text_column("interval_unit"),
    sa.Column("interval_count", sa.Integer, nullable=False),
    sa.Column(
        "late_usage_policy", sa.Text, nullable=False, server_default=sa.text("'open_period'")
    ),
    time_column("created_at"),
    primary_key("id"),
    sa.UniqueConstraint(*SCOPE, "plan_id", "version"),
    references("plans", ["plan_id"], ["id"]),
    one_of("interval_unit", IntervalUnit),
    one_of("late_usage_policy", LateUsagePolicy),
    sa.CheckConstraint("interval_count > 0", name="interval_count"),
    sa.CheckConstraint("base_price_amount >= 0", name="base_price_amount"),
    comment="Published states of plans; they never change.",
)

components = sa.Table(
    "components",
    metadata,
    *scope_columns(),
    id_column("id"),
    id_column("plan_version_id"),
    sa.Column("position", sa.Integer, nullable=False),
    id_column("usage_meter_id"),
    text_column("name"),
    decimal_column("unit_price"),
    decimal_column("included_units"),
    primary_key("id"),
    sa.UniqueConstraint(*SCOPE, "plan_version_id", "usage_meter_id"),
    references("plan_versions", ["plan_version_id"], ["id"]),
    references("usage_meters", ["usage_meter_id"], ["id"]),
    sa.CheckConstraint("unit_price >= 0", name="unit_price"),
    sa.CheckConstraint("included_units >= 0", name="included_units"),
)
