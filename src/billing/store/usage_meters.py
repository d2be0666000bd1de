"""Aggregated usage as callers see it."""

from datetime import datetime
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.errors import ResourceNotFound
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriodStatus
from billing.domain.usage_meters import (
    SubscriptionUsageMeter,
    SubscriptionUsageMeterStatus,
    UsageSummary,
)
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query, page_of, to_page

_aggregates = tables.subscription_usage_meters
_applications = tables.usage_credit_applications
_entries = tables.ledger_entries
_reversals = _entries.alias("reversals")
_meters = tables.usage_meters
_periods = tables.billing_periods
_subscriptions = tables.subscriptions

_SUMMARY = load_query("list_usage_summary")


class SubscriptionUsageMeterStore:
    """Reads ``subscription_usage_meters`` with what belongs to them."""

    async def get_subscription_usage_meter(
        self, tx: Transaction, subscription_usage_meter_id: UUID
    ) -> SubscriptionUsageMeter:
        """Return an aggregate; raises ResourceNotFound."""
        statement = _aggregates_with_credits(tx).where(
            _aggregates.c.id == subscription_usage_meter_id
        )
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="subscription usage meter",
                resource_id=identifiers.to_typeid(
                    identifiers.SUBSCRIPTION_USAGE_METER, subscription_usage_meter_id
                ),
            )
        return _to_aggregate(row)

    async def list_subscription_usage_meters(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        usage_meter_id: UUID | None,
        billing_period_id: UUID | None,
        status: SubscriptionUsageMeterStatus | None,
        date_from: datetime | None,
        date_to: datetime | None,
    ) -> Page[SubscriptionUsageMeter]:
        """Return a page of a subscription's aggregates, in the order in which usage began."""
        statement = _aggregates_with_credits(tx).where(
            _aggregates.c.subscription_id == subscription_id,
            _periods.c.subscription_id == subscription_id,
        )
        if usage_meter_id is not None:
            statement = statement.where(_aggregates.c.usage_meter_id == usage_meter_id)
        if billing_period_id is not None:
            statement = statement.where(_aggregates.c.billing_period_id == billing_period_id)
        if status is not None:
            statement = statement.where(_periods.c.status == status.period_status)
        if date_from is not None:
            statement = statement.where(_periods.c.period_end > date_from)
        if date_to is not None:
            statement = statement.where(_periods.c.period_start < date_to)
        page = page_of(statement, [_aggregates.c.id], request)
        rows = (await tx.sa.execute(page)).mappings().all()
        return to_page(rows, request, decode=_to_aggregate, key=lambda row: (row["id"],))

    async def list_usage_summary(
        self, tx: Transaction, billing_period_id: UUID
    ) -> tuple[UsageSummary, ...]:
        """Return the usage of a period by component, also of those without any."""
        records = await tx.pg.fetch(
            _SUMMARY, tx.scope.tenant_id, tx.scope.livemode, billing_period_id
        )
        return tuple(
            UsageSummary(
                record["usage_meter_id"],
                record["usage_meter_name"],
                record["component_id"],
                record["quantity"],
                record["rated_amount"],
                record["credits_applied_amount"],
            )
            for record in records
        )


def _aggregates_with_credits(tx: Transaction) -> sa.Select[Any]:
    reversed_amount = (
        sa.select(sa.func.coalesce(sa.func.sum(-_reversals.c.amount), 0))
        .where(
            in_scope(_reversals, tx.scope),
            _reversals.c.source_credit_application_id == _applications.c.id,
            _reversals.c.entry_type == sa.literal_column("'credit_application_reversed'"),
            _reversals.c.status == sa.literal_column("'posted'"),
        )
        .correlate(_applications)
        .scalar_subquery()
    )
    credited = (
        sa.select(
            sa.func.coalesce(sa.func.sum(_applications.c.amount_applied - reversed_amount), 0)
        )
        .select_from(_applications)
        .join(
            _entries,
            sa.and_(
                in_scope(_entries, tx.scope),
                _entries.c.subscription_id == _applications.c.subscription_id,
                _entries.c.ledger_transaction_id == _applications.c.ledger_transaction_id,
                _entries.c.id == _applications.c.id,
            ),
        )
        .where(
            in_scope(_applications, tx.scope),
            _applications.c.billing_period_id == _aggregates.c.billing_period_id,
            _applications.c.component_id == _aggregates.c.component_id,
            _applications.c.kind != sa.literal_column("'settlement'"),
            _entries.c.status == sa.literal_column("'posted'"),
        )
        .scalar_subquery()
    )
    return (
        sa.select(
            _aggregates,
            _meters.c.name.label("usage_meter_name"),
            _periods.c.period_start,
            _periods.c.period_end,
            _periods.c.status.label("period_status"),
            _subscriptions.c.currency,
            credited.label("credits_applied_amount"),
        )
        .select_from(_aggregates)
        .join(
            _periods,
            sa.and_(in_scope(_periods, tx.scope), _periods.c.id == _aggregates.c.billing_period_id),
        )
        .join(
            _meters,
            sa.and_(in_scope(_meters, tx.scope), _meters.c.id == _aggregates.c.usage_meter_id),
        )
        .join(
            _subscriptions,
            sa.and_(
                in_scope(_subscriptions, tx.scope),
                _subscriptions.c.id == _aggregates.c.subscription_id,
            ),
        )
        .where(in_scope(_aggregates, tx.scope))
    )


def _to_aggregate(row: Row) -> SubscriptionUsageMeter:
    status = BillingPeriodStatus(row["period_status"])
    return SubscriptionUsageMeter(
        id=row["id"],
        subscription_id=row["subscription_id"],
        usage_meter_id=row["usage_meter_id"],
        usage_meter_name=row["usage_meter_name"],
        component_id=row["component_id"],
        billing_period_id=row["billing_period_id"],
        period_start=row["period_start"],
        period_end=row["period_end"],
        status=SubscriptionUsageMeterStatus.of_period(status),
        total_quantity=row["quantity"],
        event_count=row["event_count"],
        total_raw_usage_minor=row["rated_amount"],
        credits_applied_minor=int(row["credits_applied_amount"]),
        currency=row["currency"],
        updated_at=row["updated_at"],
        pending_quantity=row["pending_quantity"],
        pending_minor=row["pending_amount"],
    )
