"""Brings the results of a billing run to their outcomes: post to the ledger, then ask for invoices.

Posting is one transaction a batch. The invoicing service is asked after its commit, so a failing
invoicing service fails results, never facts; whoever comes next sends the stored request again.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing_runs import BillingRun, BillingRunResultStatus
from billing.domain.errors import (
    BillingError,
    EarlierPeriodNotBilled,
    InvoiceNotDelivered,
    SubscriptionUnbillable,
)
from billing.domain.invoices import InvoiceRequest
from billing.domain.periods import BillingPeriodStatus
from billing.domain.scope import Scope
from billing.services.billing_posting import BillingPosting, Posted
from billing.services.invoice_delivery import InvoiceDelivery
from billing.services.ports import Clock, Metering
from billing.store.billing_periods import BillingPeriodStore, DeliveredInvoice
from billing.store.billing_runs import (
    BillingRunStore,
    CompletedResult,
    PendingResult,
    RunProgress,
)
from billing.store.database import Database, Transaction, retried_on_conflict
from billing.store.subscriptions import SubscriptionStore

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Delivery:
    """An invoice to ask for, on behalf of one result."""

    result_id: UUID
    billing_period_id: UUID
    request: InvoiceRequest


class BillingExecution:
    """Posts and delivers batches of billing runs. Safe to repeat at any point, by anybody."""

    def __init__(
        self,
        database: Database,
        runs: BillingRunStore,
        subscriptions: SubscriptionStore,
        periods: BillingPeriodStore,
        posting: BillingPosting,
        delivery: InvoiceDelivery,
        metering: Metering,
        clock: Clock,
    ) -> None:
        self._database = database
        self._runs = runs
        self._subscriptions = subscriptions
        self._periods = periods
        self._posting = posting
        self._delivery = delivery
        self._metering = metering
        self._clock = clock

    async def bill_batch(self, scope: Scope, run_id: UUID, *, batch: int) -> None:
        """Bring every pending result of a batch to its outcome, oldest period first."""
        while True:
            try:
                deliveries = await self._post(scope, run_id, batch)
            except BillingError:
                raise
            except Exception:
                _logger.exception("batch %s of run %s is posted one by one", batch, run_id)
                deliveries = await self._post_one_by_one(scope, run_id, batch)
            if deliveries is None:
                return
            await self._deliver(scope, run_id, deliveries)

    async def _post_one_by_one(
        self, scope: Scope, run_id: UUID, batch: int
    ) -> list[_Delivery] | None:
        """Post each result in a transaction of its own; fail the one that cannot be posted."""
        async with self._database.transaction(scope) as tx:
            pending = await self._runs.list_pending_results(tx, run_id=run_id, batch=batch)
        if not pending:
            return None
        deliveries: list[_Delivery] = []
        for result in pending:
            try:
                deliveries += await self._post(scope, run_id, batch, only=result.id) or []
            except BillingError:
                raise
            except Exception:
                typeid = identifiers.to_typeid(identifiers.SUBSCRIPTION, result.subscription_id)
                _logger.exception("%s cannot be billed", typeid)
                error = SubscriptionUnbillable(subscription_id=typeid)
                await self._fail(scope, run_id, CompletedResult.failed(result.id, error))
        return deliveries

    @retried_on_conflict
    async def _fail(self, scope: Scope, run_id: UUID, result: CompletedResult) -> None:
        async with self._database.transaction(scope) as tx:
            run = await self._runs.get_run(tx, run_id)
            await self._complete(tx, run, [result], 0)

    @retried_on_conflict
    async def _post(
        self, scope: Scope, run_id: UUID, batch: int, *, only: UUID | None = None
    ) -> list[_Delivery] | None:
        """Post the periods whose turn it is; return what to deliver, None when nothing is left."""
        async with self._database.transaction(scope) as tx:
            pending = await self._list_pending(tx, run_id, batch, only)
            if not pending:
                return None
            run = await self._runs.get_run(tx, run_id)
            subscriptions = await self._subscriptions.lock_subscriptions(
                tx, {result.subscription_id for result in pending}
            )
            # Again, under the locks: another worker may have had the batch while we waited.
            pending = [
                result
                for result in await self._list_pending(tx, run_id, batch, only)
                if result.subscription_id in subscriptions
            ]
            rows = await self._runs.list_period_rows(tx, [r.billing_period_id for r in pending])
            by_status: dict[str, list[PendingResult]] = {}
            for result in pending:
                by_status.setdefault(rows[result.billing_period_id]["status"], []).append(result)
            turn, blocked = _by_turn(
                by_status.get(BillingPeriodStatus.OPEN, []),
                {s.id: s.current_period_id for s in subscriptions.values()},
            )
            posted = await self._posting.post_periods(tx, run, subscriptions, turn, batch=batch)
            already_invoiced = [
                CompletedResult(
                    result.id,
                    BillingRunResultStatus.SUCCEEDED,
                    total_minor=rows[result.billing_period_id]["total_amount"],
                    invoice_id=rows[result.billing_period_id]["invoice_id"],
                )
                for result in by_status.get(BillingPeriodStatus.INVOICED, [])
            ]
            billed = by_status.get(BillingPeriodStatus.BILLED, [])
            failed = [] if turn or billed else [_blocked(result) for result in blocked]
            carried = [
                CompletedResult(
                    result.id,
                    BillingRunResultStatus.PENDING,
                    total_minor=rows[result.billing_period_id]["total_amount"],
                )
                for result in billed
            ]
            await self._complete(
                tx, run, [*posted.results, *already_invoiced, *carried, *failed], posted.added_count
            )
            return await self._deliveries(tx, posted, billed)

    async def _deliveries(
        self, tx: Transaction, posted: Posted, billed: Sequence[PendingResult]
    ) -> list[_Delivery]:
        """What was posted just now, and what an earlier attempt posted and did not deliver."""
        stored = await self._periods.list_invoice_requests(
            tx, [result.billing_period_id for result in billed]
        )
        fresh = [
            _Delivery(result_id, bill.period.id, bill.invoice_request)
            for result_id, bill in posted.bills
            if bill.invoice_request is not None
        ]
        return fresh + [
            _Delivery(result.id, result.billing_period_id, stored[result.billing_period_id])
            for result in billed
        ]

    async def _list_pending(
        self, tx: Transaction, run_id: UUID, batch: int, only: UUID | None
    ) -> list[PendingResult]:
        pending = await self._runs.list_pending_results(tx, run_id=run_id, batch=batch)
        return [result for result in pending if only in (None, result.id)]

    async def _deliver(self, scope: Scope, run_id: UUID, deliveries: Sequence[_Delivery]) -> None:
        """Ask for the invoices, and write what came back."""
        if not deliveries:
            return
        answers = await self._delivery.request_invoices(
            run_id, [delivery.request for delivery in deliveries]
        )
        try:
            await self._record(scope, run_id, deliveries, answers)
        except BillingError:
            raise
        except Exception:
            _logger.exception("invoices of run %s are recorded one by one", run_id)
            for delivery, answer in zip(deliveries, answers, strict=True):
                await self._record_alone(scope, run_id, delivery, answer)

    async def _record_alone(
        self, scope: Scope, run_id: UUID, delivery: _Delivery, answer: str | BillingError
    ) -> None:
        """Record one answer; fail the result whose answer cannot be recorded."""
        try:
            await self._record(scope, run_id, [delivery], [answer])
        except BillingError:
            raise
        except Exception as error:
            _logger.exception("the answer to %s cannot be kept", delivery.request.idempotency_key)
            failure = InvoiceNotDelivered(detail=type(error).__name__)
            await self._record(scope, run_id, [delivery], [failure])

    @retried_on_conflict
    async def _record(
        self,
        scope: Scope,
        run_id: UUID,
        deliveries: Sequence[_Delivery],
        answers: Sequence[str | BillingError],
    ) -> None:
        invoices = [
            DeliveredInvoice(delivery.billing_period_id, answer)
            for delivery, answer in zip(deliveries, answers, strict=True)
            if isinstance(answer, str)
        ]
        async with self._database.transaction(scope) as tx:
            run = await self._runs.get_run(tx, run_id)
            invoiced_count = await self._periods.update_invoiced(tx, invoices, now=self._clock())
            results = [
                _delivered(delivery, answer)
                for delivery, answer in zip(deliveries, answers, strict=True)
            ]
            await self._complete(tx, run, results, 0)
            tell = self._metering.record_invoice_created
            tx.after_commit.append(partial(tell, scope.tenant_id, count=invoiced_count))

    async def _complete(
        self,
        tx: Transaction,
        run: BillingRun,
        results: Sequence[CompletedResult],
        added_count: int,
    ) -> None:
        now = self._clock()
        progress = await self._runs.update_results(
            tx, run_id=run.id, results=results, added_count=added_count, now=now
        )
        tx.after_commit.append(partial(self._tell, tx.scope, run, progress, now=now))

    def _tell(self, scope: Scope, run: BillingRun, progress: RunProgress, *, now: datetime) -> None:
        self._metering.record_billing_run_subscriptions(
            scope.tenant_id,
            processed=progress.succeeded_count + progress.failed_count,
            succeeded=progress.succeeded_count,
            failed=progress.failed_count,
        )
        if progress.has_ended:
            status = progress.status
            seconds = (now - run.started_at).total_seconds()
            self._metering.record_billing_run(
                scope.tenant_id, run.run_type, status, seconds=seconds
            )
            _logger.info("billing run ended", extra={"run_id": run.typeid, "status": status.value})


def _by_turn(
    results: Sequence[PendingResult], current_periods: dict[UUID, UUID]
) -> tuple[list[PendingResult], list[PendingResult]]:
    """Part results whose period is the oldest unbilled one from those that have to wait."""
    turn: list[PendingResult] = []
    blocked: list[PendingResult] = []
    for result in results:
        is_current = current_periods[result.subscription_id] == result.billing_period_id
        (turn if is_current else blocked).append(result)
    return turn, blocked


def _blocked(result: PendingResult) -> CompletedResult:
    typeid = identifiers.to_typeid(identifiers.SUBSCRIPTION, result.subscription_id)
    return CompletedResult.failed(result.id, EarlierPeriodNotBilled(subscription_id=typeid))


def _delivered(delivery: _Delivery, answer: str | BillingError) -> CompletedResult:
    if isinstance(answer, BillingError):
        return CompletedResult.failed(delivery.result_id, answer)
    return CompletedResult(delivery.result_id, BillingRunResultStatus.SUCCEEDED, invoice_id=answer)
