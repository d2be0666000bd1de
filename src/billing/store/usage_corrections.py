"""Corrections of usage events."""

from collections.abc import Collection
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from billing.domain.ledger import LedgerEntryStatus
from billing.domain.pages import Page, PageRequest
from billing.domain.periods import BillingPeriod
from billing.domain.usage_corrections import UsageEventCorrection, UsageEventCorrectionType
from billing.store import tables
from billing.store.database import Transaction
from billing.store.ledger import LedgerEntryKey
from billing.store.statements import Row, in_scope, load_query, page_of, to_page

_corrections = tables.usage_event_corrections
_entries = tables.ledger_entries

_INSERT: Final = """
INSERT INTO usage_event_corrections (
    tenant_id, livemode, id, subscription_id, billing_period_id, usage_event_id, correction_type,
    quantity_before, quantity_after, cost_change_amount, currency, reason, corrected_by_user_id,
    ledger_transaction_id, corrected_at
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""
_LIST_PENDING = load_query("list_pending_usage")
_LIST_CORRECTED: Final = """
SELECT p.id FROM unnest($3::uuid[], $4::uuid[]) AS p (subscription_id, id)
WHERE EXISTS (
    SELECT FROM usage_event_corrections c
    WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.subscription_id = p.subscription_id
      AND c.billing_period_id = p.id
)
"""


class UsageCorrectionStore:
    """Reads and writes ``usage_event_corrections``."""

    async def insert_correction(self, tx: Transaction, correction: UsageEventCorrection) -> None:
        """Record a correction; its entry comes next."""
        c = correction
        await tx.pg.execute(
            _INSERT,
            tx.scope.tenant_id,
            tx.scope.livemode,
            c.id,
            c.subscription_id,
            c.billing_period_id,
            c.usage_event_id,
            c.correction_type,
            c.quantity_before,
            c.quantity_after,
            c.cost_change_minor,
            c.currency,
            c.reason,
            c.corrected_by_user_id or None,
            c.ledger_transaction_id,
            c.corrected_at,
        )

    async def list_corrected_periods(
        self, tx: Transaction, periods: Collection[BillingPeriod]
    ) -> set[UUID]:
        """Return those of the periods that have corrected usage."""
        if not periods:
            return set()
        records = await tx.pg.fetch(
            _LIST_CORRECTED,
            tx.scope.tenant_id,
            tx.scope.livemode,
            [period.subscription_id for period in periods],
            [period.id for period in periods],
        )
        return {record["id"] for record in records}

    async def list_pending_entries(
        self, tx: Transaction, *, subscription_id: UUID, billing_period_id: UUID
    ) -> list[LedgerEntryKey]:
        """Return the entries of a billed period's usage that wait for a recalculation."""
        records = await tx.pg.fetch(
            _LIST_PENDING,
            tx.scope.tenant_id,
            tx.scope.livemode,
            subscription_id,
            billing_period_id,
        )
        return [LedgerEntryKey(*record) for record in records]

    async def list_corrections(
        self, tx: Transaction, request: PageRequest, *, usage_event_id: UUID
    ) -> Page[UsageEventCorrection]:
        """Return a page of an event's corrections, oldest first."""
        statement = _corrections_with_entries(tx).where(
            _corrections.c.usage_event_id == usage_event_id
        )
        page = page_of(statement, [_corrections.c.id], request)
        rows = (await tx.sa.execute(page)).mappings().all()
        return to_page(rows, request, decode=_to_correction, key=lambda row: (row["id"],))


def _corrections_with_entries(tx: Transaction) -> sa.Select[Any]:
    entry_of_correction = sa.and_(
        in_scope(_entries, tx.scope),
        _entries.c.subscription_id == _corrections.c.subscription_id,
        _entries.c.ledger_transaction_id == _corrections.c.ledger_transaction_id,
        _entries.c.id == _corrections.c.id,
    )
    return (
        sa.select(_corrections, _entries.c.status, _entries.c.discarded_at)
        .select_from(_corrections)
        .join(_entries, entry_of_correction)
        .where(in_scope(_corrections, tx.scope))
    )


def _to_correction(row: Row) -> UsageEventCorrection:
    return UsageEventCorrection(
        id=row["id"],
        usage_event_id=row["usage_event_id"],
        subscription_id=row["subscription_id"],
        billing_period_id=row["billing_period_id"],
        correction_type=UsageEventCorrectionType(row["correction_type"]),
        quantity_before=row["quantity_before"],
        quantity_after=row["quantity_after"],
        cost_change_minor=row["cost_change_amount"],
        currency=row["currency"],
        reason=row["reason"],
        corrected_by_user_id=row["corrected_by_user_id"] or "",
        status=LedgerEntryStatus(row["status"]),
        taken_in_at=row["discarded_at"],
        ledger_transaction_id=row["ledger_transaction_id"],
        corrected_at=row["corrected_at"],
    )
