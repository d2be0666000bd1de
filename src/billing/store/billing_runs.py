"""Billing runs and their results."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.billing_runs import (
    BillingRun,
    BillingRunResult,
    BillingRunResultStatus,
    BillingRunStatus,
    BillingRunType,
)
from billing.domain.errors import BillingError, ResourceNotFound
from billing.domain.pages import Page, PageRequest
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query, page_of, scope_values, to_page

_runs = tables.billing_runs
_results = tables.billing_run_results
_periods = tables.billing_periods
_subscriptions = tables.subscriptions

_LIST_DUE = load_query("list_due_periods")
_LIST_UNDELIVERED = load_query("list_undelivered_periods")
_CLAIM = load_query("claim_periods")
_SKIP = load_query("skip_taken_periods")
_COMPLETE = load_query("complete_results")
_PROGRESS = load_query("progress_billing_run")
_LIST_PENDING: Final = """
SELECT id, subscription_id, billing_period_id
FROM billing_run_results
WHERE tenant_id = $1 AND livemode = $2 AND billing_run_id = $3 AND batch = $4
  AND status = 'pending'
ORDER BY subscription_id, id
"""
_LIST_UNFINISHED: Final = """
SELECT DISTINCT r.billing_run_id, r.batch
FROM billing_runs b
JOIN billing_run_results r
  ON r.tenant_id = $1 AND r.livemode = $2 AND r.billing_run_id = b.id AND r.status = 'pending'
WHERE b.tenant_id = $1 AND b.livemode = $2 AND b.status = 'running' AND b.started_at < $3
ORDER BY 1, 2
"""
_LIST_PERIOD_ROWS: Final = """
SELECT p.*
FROM billing_periods p
WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.id = ANY ($3::uuid[])
"""
_FIND_OWNER: Final = """
SELECT billing_run_id FROM billing_run_results
WHERE tenant_id = $1 AND livemode = $2 AND billing_period_id = $3 AND status = 'pending'
"""


class DuePeriod(NamedTuple):
    """A billing period that a run should take."""

    subscription_id: UUID
    billing_period_id: UUID


@dataclass(frozen=True, slots=True)
class PendingResult:
    """A result that a worker has to bring to its outcome."""

    id: UUID
    subscription_id: UUID
    billing_period_id: UUID


@dataclass(frozen=True, slots=True)
class CompletedResult:
    """The outcome of a pending result."""

    id: UUID
    status: BillingRunResultStatus
    total_minor: int | None = None
    invoice_id: str | None = None
    calculation_run_id: UUID | None = None
    error_reason: str | None = None
    error_message: str | None = None

    @classmethod
    def failed(cls, result_id: UUID, error: BillingError) -> "CompletedResult":
        """Return the outcome of a result that an error has stopped."""
        return cls(
            result_id,
            BillingRunResultStatus.FAILED,
            error_reason=error.reason,
            # PostgreSQL keeps no NUL in a text, and another service's message may hold one.
            error_message=error.message.replace("\0", ""),
        )


@dataclass(frozen=True, slots=True)
class RunProgress:
    """What one write did to a run: its status then, and the outcomes that are new."""

    status: BillingRunStatus
    succeeded_count: int
    failed_count: int

    @property
    def has_ended(self) -> bool:
        """Whether this write brought the run's last outcome."""
        brought = self.succeeded_count + self.failed_count
        return brought > 0 and self.status is not BillingRunStatus.RUNNING


class BillingRunStore:
    """Reads and writes ``billing_runs`` and their results."""

    async def insert_run(self, tx: Transaction, run: BillingRun) -> None:
        """Add a run without results."""
        await tx.sa.execute(
            sa.insert(_runs).values(
                **scope_values(tx.scope),
                id=run.id,
                run_type=run.run_type,
                status=run.status,
                as_of=run.as_of,
                started_at=run.started_at,
            )
        )

    async def get_run(self, tx: Transaction, run_id: UUID) -> BillingRun:
        """Return a run; raises ResourceNotFound."""
        statement = sa.select(_runs).where(in_scope(_runs, tx.scope), _runs.c.id == run_id)
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="billing run",
                resource_id=identifiers.to_typeid(identifiers.BILLING_RUN, run_id),
            )
        return _to_run(row)

    async def list_runs(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        status: BillingRunStatus | None,
        run_type: BillingRunType | None,
    ) -> Page[BillingRun]:
        """Return a page of runs, newest first."""
        statement = sa.select(_runs).where(in_scope(_runs, tx.scope))
        if status is not None:
            statement = statement.where(_runs.c.status == status)
        if run_type is not None:
            statement = statement.where(_runs.c.run_type == run_type)
        page = page_of(statement, [_runs.c.id], request, newest_first=True)
        rows = (await tx.sa.execute(page)).mappings().all()
        return to_page(rows, request, decode=_to_run, key=lambda row: (row["id"],))

    async def list_results(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        run_id: UUID,
        status: BillingRunResultStatus | None = None,
    ) -> Page[BillingRunResult]:
        """Return a page of a run's results in the order of their creation."""
        statement = _results_with_periods(tx).where(_results.c.billing_run_id == run_id)
        if status is not None:
            statement = statement.where(_results.c.status == status)
        rows = (await tx.sa.execute(page_of(statement, [_results.c.id], request))).mappings().all()
        return to_page(rows, request, decode=_to_result, key=lambda row: (row["id"],))

    async def list_due_periods(
        self, tx: Transaction, *, as_of: datetime, after: UUID | None, limit: int
    ) -> list[DuePeriod]:
        """Return the current periods of active subscriptions that ended by ``as_of``."""
        return await self._list_periods(tx, _LIST_DUE, as_of, after, limit)

    async def list_undelivered_periods(
        self, tx: Transaction, *, after: UUID | None, limit: int
    ) -> list[DuePeriod]:
        """Return billed periods that have no invoice, by the order of their ids."""
        return await self._list_periods(tx, _LIST_UNDELIVERED, after, limit)

    async def _list_periods(
        self, tx: Transaction, statement: str, *args: object
    ) -> list[DuePeriod]:
        records = await tx.pg.fetch(statement, tx.scope.tenant_id, tx.scope.livemode, *args)
        return [DuePeriod(*record.values()) for record in records]

    async def claim_periods(
        self, tx: Transaction, *, run_id: UUID, batch: int, periods: Sequence[DuePeriod]
    ) -> set[UUID]:
        """Add a pending result for each period that no running run has; return those taken."""
        records = await tx.pg.fetch(
            _CLAIM,
            tx.scope.tenant_id,
            tx.scope.livemode,
            run_id,
            batch,
            [identifiers.new_id() for _ in periods],
            [period.subscription_id for period in periods],
            [period.billing_period_id for period in periods],
        )
        return {record["billing_period_id"] for record in records}

    async def insert_skipped_results(
        self,
        tx: Transaction,
        *,
        run_id: UUID,
        batch: int,
        periods: Sequence[DuePeriod],
        now: datetime,
    ) -> int:
        """Add a skipped result for each period that a running run has, and count them."""
        status = await tx.pg.execute(
            _SKIP,
            tx.scope.tenant_id,
            tx.scope.livemode,
            run_id,
            batch,
            now,
            [identifiers.new_id() for _ in periods],
            [period.subscription_id for period in periods],
            [period.billing_period_id for period in periods],
        )
        return int(status.rpartition(" ")[2])

    async def find_owner(self, tx: Transaction, billing_period_id: UUID) -> UUID | None:
        """Return the running run that has a period."""
        owner: UUID | None = await tx.pg.fetchval(
            _FIND_OWNER, tx.scope.tenant_id, tx.scope.livemode, billing_period_id
        )
        return owner

    async def list_unfinished_batches(
        self, tx: Transaction, *, started_before: datetime
    ) -> dict[UUID, list[int]]:
        """Return the batches with pending results, by run, of runs that began before a moment."""
        records = await tx.pg.fetch(
            _LIST_UNFINISHED, tx.scope.tenant_id, tx.scope.livemode, started_before
        )
        batches: dict[UUID, list[int]] = {}
        for record in records:
            batches.setdefault(record["billing_run_id"], []).append(record["batch"])
        return batches

    async def list_pending_results(
        self, tx: Transaction, *, run_id: UUID, batch: int
    ) -> list[PendingResult]:
        """Return the results of a batch that have no outcome yet."""
        records = await tx.pg.fetch(
            _LIST_PENDING, tx.scope.tenant_id, tx.scope.livemode, run_id, batch
        )
        return [PendingResult(*record.values()) for record in records]

    async def list_period_rows(
        self, tx: Transaction, billing_period_ids: Iterable[UUID]
    ) -> Mapping[UUID, Row]:
        """Return the rows of periods by id, with their totals and invoices."""
        records = await tx.pg.fetch(
            _LIST_PERIOD_ROWS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            list(billing_period_ids),
        )
        return {record["id"]: record for record in records}

    async def update_results(
        self,
        tx: Transaction,
        *,
        run_id: UUID,
        results: Sequence[CompletedResult],
        added_count: int = 0,
        now: datetime,
    ) -> RunProgress:
        """Write outcomes and the run's counts; the last outcome ends the run.

        A result that has its outcome already keeps it, and is not counted again.
        """
        written: list[str] = []
        if results:
            records = await tx.pg.fetch(
                _COMPLETE,
                tx.scope.tenant_id,
                tx.scope.livemode,
                run_id,
                now,
                [result.id for result in results],
                [result.status for result in results],
                [result.total_minor for result in results],
                [result.invoice_id for result in results],
                [result.calculation_run_id for result in results],
                [result.error_reason for result in results],
                [result.error_message for result in results],
            )
            written = [record["status"] for record in records]
        succeeded_count = written.count(BillingRunResultStatus.SUCCEEDED)
        failed_count = written.count(BillingRunResultStatus.FAILED)
        status = await self.update_progress(
            tx,
            run_id=run_id,
            added_count=added_count,
            succeeded_count=succeeded_count,
            failed_count=failed_count,
            skipped_count=0,
            now=now,
        )
        return RunProgress(status, succeeded_count, failed_count)

    async def update_progress(
        self,
        tx: Transaction,
        *,
        run_id: UUID,
        added_count: int,
        succeeded_count: int,
        failed_count: int,
        skipped_count: int,
        now: datetime,
    ) -> BillingRunStatus:
        """Add to a run's counts; a run without pending results ends."""
        status = await tx.pg.fetchval(
            _PROGRESS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            run_id,
            now,
            added_count,
            succeeded_count,
            failed_count,
            skipped_count,
        )
        return BillingRunStatus(status)


def _results_with_periods(tx: Transaction) -> sa.Select[Any]:
    return (
        sa.select(
            _results,
            _periods.c.period_start,
            _periods.c.period_end,
            _subscriptions.c.currency,
        )
        .select_from(_results)
        .join(
            _periods,
            sa.and_(in_scope(_periods, tx.scope), _periods.c.id == _results.c.billing_period_id),
        )
        .join(
            _subscriptions,
            sa.and_(
                in_scope(_subscriptions, tx.scope),
                _subscriptions.c.id == _results.c.subscription_id,
            ),
        )
        .where(in_scope(_results, tx.scope))
    )


def _to_run(row: Row) -> BillingRun:
    processed = row["succeeded_count"] + row["failed_count"] + row["skipped_count"]
    return BillingRun(
        id=row["id"],
        run_type=BillingRunType(row["run_type"]),
        status=BillingRunStatus(row["status"]),
        as_of=row["as_of"],
        started_at=row["started_at"],
        completed_at=row["completed_at"],
        succeeded_count=row["succeeded_count"],
        failed_count=row["failed_count"],
        skipped_count=row["skipped_count"],
        pending_count=row["result_count"] - processed,
    )


def _to_result(row: Row) -> BillingRunResult:
    return BillingRunResult(
        id=row["id"],
        run_id=row["billing_run_id"],
        subscription_id=row["subscription_id"],
        billing_period_id=row["billing_period_id"],
        period_start=row["period_start"],
        period_end=row["period_end"],
        status=BillingRunResultStatus(row["status"]),
        total_minor=row["total_amount"] or 0,
        currency=row["currency"],
        invoice_id=row["invoice_id"],
        calculation_run_id=row["calculation_run_id"],
        error_reason=row["error_reason"],
        error_message=row["error_message"],
        taken_by_run_id=row["taken_by_run_id"],
        completed_at=row["completed_at"],
    )
