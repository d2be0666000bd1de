"""Billing periods and the invoices that are asked for them."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import PeriodBill
from billing.domain.errors import ResourceNotFound
from billing.domain.invoices import InvoiceRequest
from billing.domain.periods import BillingPeriod, BillingPeriodStatus
from billing.store.database import Transaction
from billing.store.statements import Row, load_query
from billing.store.stored_requests import INVOICE_REQUESTS

_INSERT = load_query("insert_billing_periods")
_CLOSE = load_query("close_billing_periods")
_CHANGE_RECEIVABLES = load_query("change_receivables")
_CHANGE_CLOSING = load_query("change_closing_receivables")
_INSERT_REQUESTS = load_query("insert_invoice_requests")
_RECORD_INVOICES = load_query("record_invoices")

_LIST: Final = """
SELECT * FROM billing_periods
WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
  AND (status = 'open') = $4
ORDER BY subscription_id, period_start
"""
_GET: Final = """
SELECT * FROM billing_periods
WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = $3 AND id = $4
"""
_LIST_REQUESTS: Final = """
SELECT billing_period_id, request::text AS request FROM invoice_requests
WHERE tenant_id = $1 AND livemode = $2 AND billing_period_id = ANY ($3::uuid[])
"""
_CUT: Final = """
UPDATE billing_periods SET period_end = $4
WHERE tenant_id = $1 AND livemode = $2 AND id = $3 AND status = 'open'
"""

_CHANGE_TOTAL: Final = """
UPDATE billing_periods SET total_amount = total_amount + $4
WHERE tenant_id = $1 AND livemode = $2 AND id = $3
"""

_COUNT_UNDELIVERED: Final = """
SELECT count(*) FROM billing_periods
WHERE tenant_id = $1 AND livemode = $2 AND status = 'billed'
"""


@dataclass(frozen=True, slots=True)
class DeliveredInvoice:
    """The invoicing service's answer for one period."""

    billing_period_id: UUID
    invoice_id: str


class BillingPeriodStore:
    """Reads and writes ``billing_periods`` and ``invoice_requests``."""

    async def insert_periods(self, tx: Transaction, periods: Collection[BillingPeriod]) -> None:
        """Open periods."""
        if not periods:
            return
        await tx.pg.execute(
            _INSERT,
            tx.scope.tenant_id,
            tx.scope.livemode,
            [p.id for p in periods],
            [p.subscription_id for p in periods],
            [p.plan_version_id for p in periods],
            [p.anchor_at for p in periods],
            [p.period_start for p in periods],
            [p.period_end for p in periods],
        )

    async def list_open_periods(
        self, tx: Transaction, subscription_ids: Iterable[UUID]
    ) -> dict[UUID, list[BillingPeriod]]:
        """Return the open periods of each subscription, oldest first."""
        return await self._list(tx, subscription_ids, is_open=True)

    async def list_closed_periods(
        self, tx: Transaction, subscription_ids: Iterable[UUID]
    ) -> dict[UUID, list[BillingPeriod]]:
        """Return the billed and invoiced periods of each subscription, oldest first."""
        return await self._list(tx, subscription_ids, is_open=False)

    async def _list(
        self, tx: Transaction, subscription_ids: Iterable[UUID], *, is_open: bool
    ) -> dict[UUID, list[BillingPeriod]]:
        records = await tx.pg.fetch(
            _LIST, tx.scope.tenant_id, tx.scope.livemode, list(subscription_ids), is_open
        )
        periods: dict[UUID, list[BillingPeriod]] = {}
        for record in records:
            periods.setdefault(record["subscription_id"], []).append(to_billing_period(record))
        return periods

    async def get_period(
        self, tx: Transaction, subscription_id: UUID, billing_period_id: UUID
    ) -> tuple[BillingPeriod, str]:
        """Return a subscription's period and its invoice's id; raises ResourceNotFound."""
        record = await tx.pg.fetchrow(
            _GET, tx.scope.tenant_id, tx.scope.livemode, subscription_id, billing_period_id
        )
        if record is None:
            raise ResourceNotFound(
                kind="billing period",
                resource_id=identifiers.to_typeid(identifiers.BILLING_PERIOD, billing_period_id),
            )
        return to_billing_period(record), record["invoice_id"] or ""

    async def update_period_end(
        self, tx: Transaction, billing_period_id: UUID, period_end: datetime
    ) -> None:
        """Cut an open period."""
        await tx.pg.execute(
            _CUT, tx.scope.tenant_id, tx.scope.livemode, billing_period_id, period_end
        )

    async def close_periods(
        self, tx: Transaction, bills: Sequence[PeriodBill], *, now: datetime
    ) -> None:
        """Set periods billed (invoiced where nothing is to be invoiced), with their totals."""
        await tx.pg.execute(
            _CLOSE,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            [bill.period.id for bill in bills],
            [bill.subscription.id for bill in bills],
            [bill.period.period_start for bill in bills],
            [bill.total_minor for bill in bills],
            [bill.receivable_minor for bill in bills],
            [bill.invoice_request is None for bill in bills],
        )

    async def change_receivables(self, tx: Transaction, changes: Mapping[UUID, int]) -> None:
        """Move the running receivables of periods of locked subscriptions, by period.

        Where a closed period's moves, its subscription's snapshot moves with it.
        """
        moved = {period_id: change for period_id, change in changes.items() if change != 0}
        if not moved:
            return
        scope = (tx.scope.tenant_id, tx.scope.livemode)
        records = await tx.pg.fetch(
            _CHANGE_RECEIVABLES, *scope, list(moved.keys()), list(moved.values())
        )
        closed: Counter[UUID] = Counter()
        for record in records:
            if record["status"] != BillingPeriodStatus.OPEN:
                closed[record["subscription_id"]] += record["change"]
        if closed:
            await tx.pg.execute(_CHANGE_CLOSING, *scope, list(closed.keys()), list(closed.values()))

    async def change_total(
        self, tx: Transaction, billing_period_id: UUID, change_minor: int
    ) -> None:
        """Move what is invoiced of a billed period of a locked subscription."""
        if change_minor != 0:
            await tx.pg.execute(
                _CHANGE_TOTAL,
                tx.scope.tenant_id,
                tx.scope.livemode,
                billing_period_id,
                change_minor,
            )

    async def insert_invoice_requests(
        self, tx: Transaction, bills: Iterable[PeriodBill], *, now: datetime
    ) -> None:
        """Store what the invoicing service will be asked for."""
        requests = [
            (bill.period.id, bill.subscription.id, bill.invoice_request)
            for bill in bills
            if bill.invoice_request is not None
        ]
        await tx.pg.execute(
            _INSERT_REQUESTS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            [period_id for period_id, _, _ in requests],
            [subscription_id for _, subscription_id, _ in requests],
            [INVOICE_REQUESTS.to_json(request) for _, _, request in requests],
        )

    async def list_invoice_requests(
        self, tx: Transaction, billing_period_ids: Iterable[UUID]
    ) -> dict[UUID, InvoiceRequest]:
        """Return the stored requests by period."""
        records = await tx.pg.fetch(
            _LIST_REQUESTS, tx.scope.tenant_id, tx.scope.livemode, list(billing_period_ids)
        )
        return {
            record["billing_period_id"]: INVOICE_REQUESTS.from_json(record["request"])
            for record in records
        }

    async def count_undelivered(self, tx: Transaction) -> int:
        """Count the billed periods that have no invoice yet."""
        count = await tx.pg.fetchval(_COUNT_UNDELIVERED, tx.scope.tenant_id, tx.scope.livemode)
        return int(count)

    async def update_invoiced(
        self, tx: Transaction, invoices: Sequence[DeliveredInvoice], *, now: datetime
    ) -> int:
        """Set periods invoiced, with their calculations; return how many were not invoiced yet."""
        if not invoices:
            return 0
        count = await tx.pg.fetchval(
            _RECORD_INVOICES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            [invoice.billing_period_id for invoice in invoices],
            [invoice.invoice_id for invoice in invoices],
        )
        return int(count)


def to_billing_period(row: Row) -> BillingPeriod:
    """Return the period in a row of ``billing_periods``."""
    return BillingPeriod(
        id=row["id"],
        subscription_id=row["subscription_id"],
        plan_version_id=row["plan_version_id"],
        anchor_at=row["anchor_at"],
        period_start=row["period_start"],
        period_end=row["period_end"],
        status=BillingPeriodStatus(row["status"]),
        receivable_minor=row["receivable_amount"],
    )
