"""Subscriptions."""

from collections.abc import Collection
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.errors import ResourceNotFound
from billing.domain.pages import Page, PageRequest
from billing.domain.subscriptions import (
    CreditApplicationMode,
    Subscription,
    SubscriptionStatus,
)
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query, page_of, scope_values, to_page

_table = tables.subscriptions
_LOCK = load_query("lock_subscriptions")
_ADVANCE = load_query("advance_subscriptions")


class SubscriptionStore:
    """Reads and writes ``subscriptions``."""

    async def insert_subscription(self, tx: Transaction, subscription: Subscription) -> None:
        """Add a subscription."""
        await tx.sa.execute(sa.insert(_table).values(_to_row(tx, subscription)))

    async def get_subscription(self, tx: Transaction, subscription_id: UUID) -> Subscription:
        """Return a subscription; raises ResourceNotFound."""
        statement = sa.select(_table).where(
            in_scope(_table, tx.scope), _table.c.id == subscription_id
        )
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise _not_found(subscription_id)
        return _to_subscription(row)

    async def lock_subscription(self, tx: Transaction, subscription_id: UUID) -> Subscription:
        """Return a subscription that only this transaction changes; raises ResourceNotFound."""
        locked = await self.lock_subscriptions(tx, [subscription_id])
        if subscription_id not in locked:
            raise _not_found(subscription_id)
        return locked[subscription_id]

    async def lock_subscriptions(
        self, tx: Transaction, ids: Collection[UUID]
    ) -> dict[UUID, Subscription]:
        """Lock the subscriptions that exist, in the order of their ids."""
        records = await tx.pg.fetch(_LOCK, tx.scope.tenant_id, tx.scope.livemode, list(ids))
        return {record["id"]: _to_subscription(record) for record in records}

    async def list_subscriptions(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        status: SubscriptionStatus | None,
        customer_id: str | None,
    ) -> Page[Subscription]:
        """Return a page of subscriptions, oldest first."""
        statement = sa.select(_table).where(in_scope(_table, tx.scope))
        if status is not None:
            statement = statement.where(_table.c.status == status)
        if customer_id is not None:
            statement = statement.where(_table.c.customer_id == customer_id)
        rows = (await tx.sa.execute(page_of(statement, [_table.c.id], request))).mappings().all()
        return to_page(rows, request, decode=_to_subscription, key=lambda row: (row["id"],))

    async def update_subscription(self, tx: Transaction, subscription: Subscription) -> None:
        """Write a locked subscription's state."""
        await self.update_subscriptions(tx, [subscription])

    async def update_subscriptions(
        self, tx: Transaction, subscriptions: Collection[Subscription]
    ) -> None:
        """Write the states of locked subscriptions: status, its times, and the current period."""
        await tx.pg.execute(
            _ADVANCE,
            tx.scope.tenant_id,
            tx.scope.livemode,
            [s.id for s in subscriptions],
            [s.status for s in subscriptions],
            [s.plan_version_id for s in subscriptions],
            [s.current_period_id for s in subscriptions],
            [s.current_period_start for s in subscriptions],
            [s.current_period_end for s in subscriptions],
            [s.cancel_at for s in subscriptions],
            [s.paused_at for s in subscriptions],
            [s.cancelled_at for s in subscriptions],
            [s.updated_at for s in subscriptions],
        )


def _not_found(subscription_id: UUID) -> ResourceNotFound:
    return ResourceNotFound(
        kind="subscription",
        resource_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, subscription_id),
    )


def _to_row(tx: Transaction, subscription: Subscription) -> dict[str, Any]:
    columns = {column.name for column in _table.columns if column.name not in tables.SCOPE}
    return scope_values(tx.scope) | {name: getattr(subscription, name) for name in columns}


def _to_subscription(row: Row) -> Subscription:
    return Subscription(
        id=row["id"],
        customer_id=row["customer_id"],
        plan_id=row["plan_id"],
        plan_version_id=row["plan_version_id"],
        currency=row["currency"],
        status=SubscriptionStatus(row["status"]),
        started_at=row["started_at"],
        receivable_account_id=row["receivable_account_id"],
        current_period_id=row["current_period_id"],
        current_period_start=row["current_period_start"],
        current_period_end=row["current_period_end"],
        cancel_at=row["cancel_at"],
        paused_at=row["paused_at"],
        cancelled_at=row["cancelled_at"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        credit_application=CreditApplicationMode(row["credit_application"]),
    )
