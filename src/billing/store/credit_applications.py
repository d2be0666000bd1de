"""Uses and adjustments of usage credits."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from pydantic_core import to_json

from billing.domain import identifiers
from billing.domain.credit_consumption import Coverage
from billing.domain.credit_reassignment import LiveApplication
from billing.domain.credits import (
    CreditApplication,
    CreditApplicationKind,
    CreditBalanceAdjustment,
    CreditBalanceAdjustmentDirection,
    CreditBalanceAdjustmentType,
)
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriod
from billing.store import tables
from billing.store.database import Transaction
from billing.store.ledger import LedgerEntryKey
from billing.store.statements import Row, in_scope, load_query, page_of, to_page

_applications = tables.usage_credit_applications
_adjustments = tables.usage_credit_balance_adjustments
_entries = tables.ledger_entries
_refunds = tables.refunds

_INSERT = load_query("insert_credit_applications")
_LIST_COVERAGE = load_query("list_coverage")
_LIST_LIVE = load_query("list_live_applications")
_LIST_PENDING = load_query("list_pending_applications")
_RELEASE = load_query("release_pending_applications")
_SUM_USAGE_BY_SEGMENT = load_query("sum_usage_by_segment")
_INSERT_ADJUSTMENT: Final = """
INSERT INTO usage_credit_balance_adjustments (
    tenant_id, livemode, id, subscription_id, usage_credit_id, adjustment_type, direction,
    amount_adjusted, deficit_amount, currency, reason, adjusted_by_user_id, notes, metadata,
    source_refund_id, adjustment_initiated_at, ledger_transaction_id
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14::text::jsonb, $15, $16, $17)
"""
_FIND_ADJUSTMENT_OF_REFUND: Final = """
SELECT id FROM usage_credit_balance_adjustments
WHERE tenant_id = $1 AND livemode = $2 AND source_refund_id = $3
"""
_LIST_SETTLEMENTS: Final = """
SELECT a.*, a.amount_applied - coalesce((
           SELECT sum(-r.amount) FROM ledger_entries r
           WHERE r.tenant_id = $1 AND r.livemode = $2 AND r.source_credit_application_id = a.id
             AND r.entry_type = 'credit_application_reversed' AND r.discarded_at IS NULL
       ), 0)::bigint AS reversible_amount
FROM usage_credit_applications a
WHERE a.tenant_id = $1 AND a.livemode = $2 AND a.usage_credit_id = $3 AND a.kind = 'settlement'
ORDER BY a.id DESC
"""
_CLOCK_MARGIN: Final = timedelta(hours=1)


class NewCreditApplication(NamedTuple):
    """A row of ``usage_credit_applications``, in the order of the statement's columns."""

    id: UUID
    subscription_id: UUID
    usage_credit_id: UUID
    kind: CreditApplicationKind
    calculation_run_id: UUID
    billing_period_id: UUID
    component_id: UUID | None
    usage_meter_id: UUID | None
    amount_applied: int
    currency: str
    usage_from: datetime | None
    usage_until: datetime | None
    ledger_transaction_id: UUID


class PendingApplication(NamedTuple):
    """An application that nobody has posted: an estimate's, which the run replaces."""

    entry: LedgerEntryKey
    usage_credit_id: UUID
    amount_minor: int


@dataclass(slots=True)
class PeriodCoverage:
    """What was applied to one period: what counts, and whether there is more that is pending."""

    posted: list[Coverage] = field(default_factory=list)
    has_pending: bool = False


class ReversibleApplication(NamedTuple):
    """A settlement application with what of it nobody has reversed yet, in minor units."""

    id: UUID
    billing_period_id: UUID
    usage_meter_id: UUID | None
    reversible_minor: int


class CreditApplicationStore:
    """Reads and writes ``usage_credit_applications`` and ``usage_credit_balance_adjustments``."""

    async def insert_applications(
        self, tx: Transaction, applications: Sequence[NewCreditApplication], *, now: datetime
    ) -> None:
        """Record uses of credits; their entries come next."""
        if applications:
            columns = [list(column) for column in zip(*applications, strict=True)]
            await tx.pg.execute(_INSERT, tx.scope.tenant_id, tx.scope.livemode, now, *columns)

    async def list_coverage(
        self, tx: Transaction, billing_period_ids: Iterable[UUID]
    ) -> dict[UUID, PeriodCoverage]:
        """Return what was applied to periods, by period."""
        records = await tx.pg.fetch(
            _LIST_COVERAGE, tx.scope.tenant_id, tx.scope.livemode, list(billing_period_ids)
        )
        found: dict[UUID, PeriodCoverage] = {}
        for row in records:
            coverage = found.setdefault(row["billing_period_id"], PeriodCoverage())
            if row["is_pending"]:
                coverage.has_pending = True
            elif row["amount"] > 0:
                coverage.posted.append(
                    Coverage(
                        CreditApplicationKind(row["kind"]),
                        row["component_id"],
                        row["usage_from"],
                        row["usage_until"],
                        row["amount"],
                    )
                )
        return found

    async def list_pending(
        self, tx: Transaction, billing_period_ids: Iterable[UUID]
    ) -> list[PendingApplication]:
        """Return the applications to periods that nobody has posted or discarded."""
        records = await tx.pg.fetch(
            _LIST_PENDING, tx.scope.tenant_id, tx.scope.livemode, list(billing_period_ids)
        )
        return [
            PendingApplication(
                LedgerEntryKey(row["subscription_id"], row["ledger_transaction_id"], row["id"]),
                row["usage_credit_id"],
                row["amount"],
            )
            for row in records
        ]

    async def release_pending(
        self, tx: Transaction, pending: Sequence[PendingApplication], *, now: datetime
    ) -> None:
        """Free the value that pending applications hold, once their entries are discarded."""
        await tx.pg.execute(
            _RELEASE,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            [application.usage_credit_id for application in pending],
            [application.amount_minor for application in pending],
        )

    async def sum_usage_by_segment(
        self,
        tx: Transaction,
        divided: Sequence[tuple[BillingPeriod, Sequence[datetime]]],
        *,
        of_any_age: bool = False,
    ) -> dict[UUID, dict[tuple[UUID, int], int]]:
        """Return by period the cost of its usage by component and segment.

        ``of_any_age`` reads all entries of the subscriptions, should clocks differ by more than
        the hour that is allowed for otherwise.
        """
        if not divided:
            return {}
        earliest = datetime.fromtimestamp(0, UTC)
        records = await tx.pg.fetch(
            _SUM_USAGE_BY_SEGMENT,
            tx.scope.tenant_id,
            tx.scope.livemode,
            [period.subscription_id for period, _ in divided],
            [period.id for period, _ in divided],
            [
                identifiers.earliest_id(
                    earliest if of_any_age else identifiers.made_at(period.id) - _CLOCK_MARGIN
                )
                for period, _ in divided
            ],
            ["{" + ",".join(cut.isoformat() for cut in cuts) + "}" for _, cuts in divided],
        )
        usage: dict[UUID, dict[tuple[UUID, int], int]] = {period.id: {} for period, _ in divided}
        for row in records:
            segments = usage[row["billing_period_id"]]
            segments[row["component_id"], row["segment"]] = row["amount"]
        return usage

    async def list_live(self, tx: Transaction, billing_period_id: UUID) -> list[LiveApplication]:
        """Return what still pays a period, the oldest first; what is pending does not."""
        records = await tx.pg.fetch(
            _LIST_LIVE, tx.scope.tenant_id, tx.scope.livemode, billing_period_id
        )
        return [
            LiveApplication(
                row["id"],
                row["usage_credit_id"],
                row["billing_period_id"],
                CreditApplicationKind(row["kind"]),
                row["component_id"],
                row["usage_meter_id"],
                row["usage_from"],
                row["usage_until"],
                row["live_amount"],
                row["reversible_amount"],
            )
            for row in records
        ]

    async def list_settlements(
        self, tx: Transaction, usage_credit_id: UUID
    ) -> list[ReversibleApplication]:
        """Return what a credit settled and nobody has reversed yet, newest first."""
        records = await tx.pg.fetch(
            _LIST_SETTLEMENTS, tx.scope.tenant_id, tx.scope.livemode, usage_credit_id
        )
        return [
            ReversibleApplication(
                row["id"],
                row["billing_period_id"],
                row["usage_meter_id"],
                row["reversible_amount"],
            )
            for row in records
            if row["reversible_amount"] > 0
        ]

    async def insert_adjustment(self, tx: Transaction, adjustment: CreditBalanceAdjustment) -> None:
        """Record an adjustment; its entries come next."""
        a = adjustment
        await tx.pg.execute(
            _INSERT_ADJUSTMENT,
            tx.scope.tenant_id,
            tx.scope.livemode,
            a.id,
            a.subscription_id,
            a.usage_credit_id,
            a.adjustment_type,
            a.direction,
            a.adjusted_minor,
            a.deficit_minor,
            a.currency,
            a.reason,
            a.adjusted_by_user_id or None,
            a.notes or None,
            to_json(a.metadata).decode() if a.metadata else None,
            a.source_refund_id,
            a.adjustment_initiated_at,
            a.ledger_transaction_id,
        )

    async def find_adjustment_of_refund(self, tx: Transaction, refund_id: UUID) -> UUID | None:
        """Return the id of the adjustment that a refund made, if it made one."""
        found = await tx.pg.fetchval(
            _FIND_ADJUSTMENT_OF_REFUND, tx.scope.tenant_id, tx.scope.livemode, refund_id
        )
        assert found is None or isinstance(found, UUID)
        return found

    async def list_applications(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        usage_credit_id: UUID | None,
        billing_period_id: UUID | None,
        kind: CreditApplicationKind | None,
    ) -> Page[CreditApplication]:
        """Return a page of a subscription's applications, oldest first; estimates apply none."""
        statement = _applications_with_reversals(tx).where(
            _applications.c.subscription_id == subscription_id
        )
        if usage_credit_id is not None:
            statement = statement.where(_applications.c.usage_credit_id == usage_credit_id)
        if billing_period_id is not None:
            statement = statement.where(_applications.c.billing_period_id == billing_period_id)
        if kind is not None:
            statement = statement.where(_applications.c.kind == kind)
        page = page_of(statement, [_applications.c.id], request)
        rows = (await tx.sa.execute(page)).mappings().all()
        return to_page(rows, request, decode=_to_application, key=lambda row: (row["id"],))

    async def list_adjustments(
        self, tx: Transaction, request: PageRequest, *, usage_credit_id: UUID
    ) -> Page[CreditBalanceAdjustment]:
        """Return a page of a credit's adjustments, oldest first.

        Without those of failed refunds, which took nothing back.
        """
        of_failed_refund = (
            sa.exists()
            .where(
                in_scope(_refunds, tx.scope),
                _refunds.c.id == _adjustments.c.source_refund_id,
                _refunds.c.status == sa.literal_column("'failed'"),
            )
            .correlate(_adjustments)
        )
        statement = sa.select(_adjustments).where(
            in_scope(_adjustments, tx.scope),
            _adjustments.c.usage_credit_id == usage_credit_id,
            ~of_failed_refund,
        )
        page = page_of(statement, [_adjustments.c.id], request)
        rows = (await tx.sa.execute(page)).mappings().all()
        return to_page(rows, request, decode=_to_adjustment, key=lambda row: (row["id"],))


_own_entries = _entries.alias("own_entries")
_reversals = _entries.alias("reversals")


def _applications_with_reversals(tx: Transaction) -> sa.Select[Any]:
    own, reversal = _own_entries, _reversals
    reversed_amount = (
        sa.select(sa.func.coalesce(sa.func.sum(-reversal.c.amount), 0))
        .where(
            in_scope(reversal, tx.scope),
            reversal.c.source_credit_application_id == _applications.c.id,
            reversal.c.entry_type == sa.literal_column("'credit_application_reversed'"),
            reversal.c.status == sa.literal_column("'posted'"),
        )
        .scalar_subquery()
    )
    entry_of_application = sa.and_(
        in_scope(own, tx.scope),
        own.c.subscription_id == _applications.c.subscription_id,
        own.c.ledger_transaction_id == _applications.c.ledger_transaction_id,
        own.c.id == _applications.c.id,
    )
    return (
        sa.select(_applications, reversed_amount.label("reversed_amount"))
        .select_from(_applications)
        .join(own, entry_of_application)
        .where(
            in_scope(_applications, tx.scope),
            own.c.status == sa.literal_column("'posted'"),
        )
    )


def _to_application(row: Row) -> CreditApplication:
    return CreditApplication(
        id=row["id"],
        usage_credit_id=row["usage_credit_id"],
        subscription_id=row["subscription_id"],
        kind=CreditApplicationKind(row["kind"]),
        calculation_run_id=row["calculation_run_id"],
        billing_period_id=row["billing_period_id"],
        component_id=row["component_id"],
        usage_meter_id=row["usage_meter_id"],
        applied_minor=row["amount_applied"],
        reversed_minor=int(row["reversed_amount"]),
        currency=row["currency"],
        usage_from=row["usage_from"],
        usage_until=row["usage_until"],
        applied_at=row["applied_at"],
        ledger_transaction_id=row["ledger_transaction_id"],
    )


def _to_adjustment(row: Row) -> CreditBalanceAdjustment:
    return CreditBalanceAdjustment(
        id=row["id"],
        usage_credit_id=row["usage_credit_id"],
        subscription_id=row["subscription_id"],
        adjustment_type=CreditBalanceAdjustmentType(row["adjustment_type"]),
        direction=CreditBalanceAdjustmentDirection(row["direction"]),
        adjusted_minor=row["amount_adjusted"],
        deficit_minor=row["deficit_amount"],
        currency=row["currency"],
        reason=row["reason"],
        adjusted_by_user_id=row["adjusted_by_user_id"] or "",
        notes=row["notes"] or "",
        metadata=row["metadata"] or {},
        source_refund_id=row["source_refund_id"],
        adjustment_initiated_at=row["adjustment_initiated_at"],
        ledger_transaction_id=row["ledger_transaction_id"],
    )
