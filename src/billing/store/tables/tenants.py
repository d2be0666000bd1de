"""Who owns data, and what was answered to their requests."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from billing.store.tables.columns import (
    metadata,
    primary_key,
    scope_columns,
    text_column,
    time_column,
)

tenants = sa.Table(
    "tenants",
    metadata,
    *scope_columns(),
    time_column("created_at"),
    primary_key(),
    comment="Every owner of data; outside row security, so that workers find them.",
)

idempotent_requests = sa.Table(
    "idempotent_requests",
    metadata,
    *scope_columns(),
    text_column("method"),
    text_column("request_id"),
    sa.Column("request_hash", sa.LargeBinary, nullable=False),
    sa.Column("response", JSONB, nullable=False),
    time_column("created_at"),
    primary_key("method", "request_id"),
    comment="The answers of successful mutations, for ever.",
)
