"""Usage credits and what is left of them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from pydantic_core import to_json

from billing.domain import identifiers
from billing.domain.credits import (
    CreditSummary,
    UsageCredit,
    UsageCreditStatus,
    UsageCreditType,
)
from billing.domain.errors import ResourceNotFound
from billing.domain.pages import Page, PageRequest
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query, page_of, to_page

_credits = tables.usage_credits
_balances = tables.usage_credit_balances

_INSERT = load_query("insert_usage_credits")
_UPDATE_BALANCES = load_query("update_usage_credit_balances")
_LOCK_LIVE = load_query("lock_live_credits")
_LIST_MOMENTS = load_query("list_credit_moments")
_LIST_LAST_EXPIRIES = load_query("list_last_expiries")
_SUMMARY = load_query("credit_summary")
_LIST_OVERDUE = load_query("list_overdue_subscriptions")


class BalanceChange(NamedTuple):
    """What changes of a credit's value, in minor units, in the order of the statement's columns."""

    usage_credit_id: UUID
    remaining_change: int
    held_change: int
    status: UsageCreditStatus
    voided_at: datetime | None
    expired_at: datetime | None


class PeriodSpan(NamedTuple):
    """A period whose credits' moments are asked for."""

    billing_period_id: UUID
    subscription_id: UUID
    period_start: datetime
    period_end: datetime


class CreditStore:
    """Reads and writes ``usage_credits`` and ``usage_credit_balances``."""

    async def insert_credits(self, tx: Transaction, credits_: Collection[UsageCredit]) -> None:
        """Write new credits with their values; their accounts are open."""
        rows = [
            (
                c.id,
                c.subscription_id,
                c.credit_type,
                c.source_reference_id or None,
                c.billing_period_id,
                c.usage_meter_id,
                c.component_id,
                c.issued_minor,
                c.currency,
                c.priority,
                c.covers_charges,
                c.effective_at,
                c.expires_at,
                c.issued_at,
                c.initial_status,
                c.notes or None,
                to_json(c.metadata).decode() if c.metadata else None,
                c.status,
                c.remaining_minor,
            )
            for c in credits_
        ]
        columns = [list(column) for column in zip(*rows, strict=True)]
        await tx.pg.execute(_INSERT, tx.scope.tenant_id, tx.scope.livemode, *columns)

    async def update_balances(
        self, tx: Transaction, changes: Sequence[BalanceChange], *, now: datetime
    ) -> None:
        """Change values of credits; the database refuses one below zero."""
        if changes:
            columns = [list(column) for column in zip(*changes, strict=True)]
            await tx.pg.execute(
                _UPDATE_BALANCES, tx.scope.tenant_id, tx.scope.livemode, now, *columns
            )

    async def lock_live_credits(
        self, tx: Transaction, subscription_ids: Iterable[UUID]
    ) -> dict[UUID, list[UsageCredit]]:
        """Lock the credits of which something can be spent; return them by subscription."""
        records = await tx.pg.fetch(
            _LOCK_LIVE, tx.scope.tenant_id, tx.scope.livemode, list(subscription_ids)
        )
        found: dict[UUID, list[UsageCredit]] = {}
        for record in records:
            found.setdefault(record["subscription_id"], []).append(_to_credit(record))
        return found

    async def list_moments(
        self, tx: Transaction, spans: Sequence[PeriodSpan]
    ) -> dict[UUID, list[datetime]]:
        """Return by period the moments within it at which a credit takes effect or expires.

        Of all credits of the subscription, used up and voided ones too: how a period is divided
        must not depend on what was spent when.
        """
        records = await tx.pg.fetch(
            _LIST_MOMENTS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            *[list(column) for column in zip(*spans, strict=True)],
        )
        moments: dict[UUID, list[datetime]] = {}
        for record in records:
            moments.setdefault(record["billing_period_id"], []).append(record["moment"])
        return moments

    async def list_last_expiries(
        self, tx: Transaction, spans: Sequence[PeriodSpan], *, now: datetime
    ) -> dict[UUID, datetime]:
        """Return by period the last moment within it, by now, at which a credit expired."""
        if not spans:
            return {}
        records = await tx.pg.fetch(
            _LIST_LAST_EXPIRIES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            *[list(column) for column in zip(*spans, strict=True)],
            now,
        )
        return {record["billing_period_id"]: record["moment"] for record in records}

    async def list_overdue_subscriptions(
        self,
        tx: Transaction,
        *,
        now: datetime,
        subscription_id: UUID | None,
        after: UUID | None,
        limit: int,
    ) -> list[UUID]:
        """Return subscriptions with a credit whose time is over and of which something is left."""
        records = await tx.pg.fetch(
            _LIST_OVERDUE,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            subscription_id,
            after,
            limit,
        )
        return [record["subscription_id"] for record in records]

    async def get_credit(self, tx: Transaction, usage_credit_id: UUID) -> UsageCredit:
        """Return a credit; raises ResourceNotFound."""
        return await self._get(tx, usage_credit_id, lock=False)

    async def lock_credit(self, tx: Transaction, usage_credit_id: UUID) -> UsageCredit:
        """Return a credit and keep others from changing its value; raises ResourceNotFound."""
        return await self._get(tx, usage_credit_id, lock=True)

    async def _get(self, tx: Transaction, usage_credit_id: UUID, *, lock: bool) -> UsageCredit:
        statement = _credits_with_balances(tx).where(_credits.c.id == usage_credit_id)
        if lock:
            statement = statement.with_for_update(of=_balances, key_share=True)
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="credit",
                resource_id=identifiers.to_typeid(identifiers.USAGE_CREDIT, usage_credit_id),
            )
        return _to_credit(row)

    async def list_credits(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        status: UsageCreditStatus | None,
        usage_meter_id: UUID | None,
        live_at: datetime | None,
    ) -> Page[UsageCredit]:
        """Return a page of a subscription's credits, oldest first."""
        statement = _credits_with_balances(tx).where(_credits.c.subscription_id == subscription_id)
        if status is not None:
            statement = statement.where(_balances.c.status == status)
        if usage_meter_id is not None:
            statement = statement.where(_credits.c.usage_meter_id == usage_meter_id)
        if live_at is not None:
            statement = statement.where(
                _credits.c.effective_at <= live_at,
                sa.or_(_credits.c.expires_at.is_(None), _credits.c.expires_at > live_at),
                sa.or_(_balances.c.voided_at.is_(None), _balances.c.voided_at > live_at),
            )
        rows = (await tx.sa.execute(page_of(statement, [_credits.c.id], request))).mappings().all()
        return to_page(rows, request, decode=_to_credit, key=lambda row: (row["id"],))

    async def update_annotations(
        self,
        tx: Transaction,
        usage_credit_id: UUID,
        *,
        notes: str | None,
        metadata: Mapping[str, str] | None,
        now: datetime,
    ) -> None:
        """Change notes and metadata; None leaves them alone."""
        values: dict[str, Any] = {"updated_at": now}
        if notes is not None:
            values["notes"] = notes or None
        if metadata is not None:
            values["metadata"] = dict(metadata) or sa.null()
        await tx.sa.execute(
            sa.update(_credits)
            .where(in_scope(_credits, tx.scope), _credits.c.id == usage_credit_id)
            .values(values)
        )

    async def get_summary(
        self, tx: Transaction, *, subscription_id: UUID, currency: str, now: datetime
    ) -> CreditSummary:
        """Return a subscription's credits in figures."""
        records = await tx.pg.fetch(
            _SUMMARY, tx.scope.tenant_id, tx.scope.livemode, subscription_id, now
        )
        available = [record for record in records if record["available_amount"] > 0]
        by_type: dict[UsageCreditType, int] = {}
        for record in available:
            kind = UsageCreditType(record["credit_type"])
            by_type[kind] = by_type.get(kind, 0) + record["available_amount"]
        next_expires_at = min(
            (r["expires_at"] for r in available if r["expires_at"] is not None), default=None
        )
        return CreditSummary(
            subscription_id=subscription_id,
            currency=currency,
            available_minor=sum(by_type.values()),
            upcoming_minor=sum(r["available_amount"] for r in available if r["effective_at"] > now),
            held_minor=sum(record["held_amount"] for record in records),
            credit_balance_minor=sum(
                record["remaining_amount"] + record["held_amount"] for record in records
            ),
            available_count=len(available),
            next_expires_at=next_expires_at,
            next_expiring_minor=sum(
                record["available_amount"]
                for record in available
                if next_expires_at is not None and record["expires_at"] == next_expires_at
            ),
            available_by_type=by_type,
            as_of=now,
        )


def _credits_with_balances(tx: Transaction) -> sa.Select[Any]:
    return (
        sa.select(
            _credits,
            _balances.c.status,
            _balances.c.remaining_amount,
            _balances.c.held_amount,
            _balances.c.voided_at,
            _balances.c.expired_at,
            sa.func.greatest(_credits.c.updated_at, _balances.c.updated_at).label("changed_at"),
        )
        .select_from(_credits)
        .join(
            _balances,
            sa.and_(in_scope(_balances, tx.scope), _balances.c.usage_credit_id == _credits.c.id),
        )
        .where(in_scope(_credits, tx.scope))
    )


def _to_credit(row: Row) -> UsageCredit:
    return UsageCredit(
        id=row["id"],
        subscription_id=row["subscription_id"],
        credit_type=UsageCreditType(row["credit_type"]),
        source_reference_id=row["source_reference_id"] or "",
        billing_period_id=row["billing_period_id"],
        usage_meter_id=row["usage_meter_id"],
        component_id=row["component_id"],
        issued_minor=row["issued_amount"],
        currency=row["currency"],
        priority=row["priority"],
        covers_charges=row["covers_charges"],
        effective_at=row["effective_at"],
        expires_at=row["expires_at"],
        issued_at=row["issued_at"],
        initial_status=row["initial_status"],
        notes=row["notes"] or "",
        metadata=row["metadata"] or {},
        status=UsageCreditStatus(row["status"]),
        remaining_minor=row["remaining_amount"],
        held_minor=row["held_amount"],
        voided_at=row["voided_at"],
        expired_at=row["expired_at"],
        updated_at=row["changed_at"],
    )
