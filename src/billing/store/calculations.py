"""Calculations as they are kept: one active by component and period, and all before it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.billing import CalculationStatus, CalculationType
from billing.domain.calculations import KeptCalculation
from billing.domain.errors import ResourceNotFound
from billing.domain.pages import Page, PageRequest
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query, page_of, to_page

_calculations = tables.calculations

_SUPERSEDE_ESTIMATES = load_query("supersede_estimates")
_DISCARD_ESTIMATES: Final = """
UPDATE calculations SET status = 'discarded'
WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = ANY ($3::uuid[])
  AND status = 'pending_confirmation'
RETURNING billing_period_id
"""
_SUPERSEDE: Final = """
UPDATE calculations c SET status = 'superseded', superseded_by_calculation_id = u.successor_id
FROM unnest($3::uuid[], $4::uuid[]) AS u (id, successor_id)
WHERE c.tenant_id = $1 AND c.livemode = $2 AND c.id = u.id
"""
_MAX_CHAIN: Final = 1_000


class CalculationStore:
    """Reads ``calculations`` and moves their statuses."""

    async def discard_estimates(
        self, tx: Transaction, subscription_ids: Collection[UUID]
    ) -> set[UUID]:
        """Discard the estimates of locked subscriptions; return the periods they were of."""
        records = await tx.pg.fetch(
            _DISCARD_ESTIMATES, tx.scope.tenant_id, tx.scope.livemode, list(subscription_ids)
        )
        return {record["billing_period_id"] for record in records}

    async def supersede_estimates(
        self,
        tx: Transaction,
        subscription_ids: Collection[UUID],
        *,
        calculation_run_ids: Collection[UUID],
    ) -> None:
        """Let new calculations replace the estimates of locked subscriptions."""
        await tx.pg.execute(
            _SUPERSEDE_ESTIMATES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            list(subscription_ids),
            list(calculation_run_ids),
        )

    async def supersede(self, tx: Transaction, successors: Mapping[UUID, UUID]) -> None:
        """Let active calculations name their successors, which are to be written next."""
        if successors:
            await tx.pg.execute(
                _SUPERSEDE,
                tx.scope.tenant_id,
                tx.scope.livemode,
                list(successors.keys()),
                list(successors.values()),
            )

    async def list_active(
        self, tx: Transaction, *, subscription_id: UUID, billing_period_id: UUID
    ) -> list[KeptCalculation]:
        """Return the active calculations of a period, in the order they were made."""
        statement = (
            sa.select(_calculations)
            .where(
                in_scope(_calculations, tx.scope),
                _calculations.c.subscription_id == subscription_id,
                _calculations.c.billing_period_id == billing_period_id,
                _calculations.c.status == sa.literal_column("'active'"),
            )
            .order_by(_calculations.c.id)
        )
        return [to_calculation(row) for row in (await tx.sa.execute(statement)).mappings()]

    async def list_of_run(self, tx: Transaction, calculation_run_id: UUID) -> list[KeptCalculation]:
        """Return the calculations of one execution, in the order they were made."""
        statement = (
            sa.select(_calculations)
            .where(
                in_scope(_calculations, tx.scope),
                _calculations.c.calculation_run_id == calculation_run_id,
            )
            .order_by(_calculations.c.id)
        )
        return [to_calculation(row) for row in (await tx.sa.execute(statement)).mappings()]

    async def get_calculation(self, tx: Transaction, calculation_id: UUID) -> KeptCalculation:
        """Return a calculation; raises ResourceNotFound."""
        statement = sa.select(_calculations).where(
            in_scope(_calculations, tx.scope), _calculations.c.id == calculation_id
        )
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="calculation",
                resource_id=identifiers.to_typeid(identifiers.CALCULATION, calculation_id),
            )
        return to_calculation(row)

    async def list_superseded(
        self, tx: Transaction, calculation: KeptCalculation
    ) -> list[KeptCalculation]:
        """Return what a calculation replaced, the latest first, down to the first one."""
        statement = sa.select(_calculations).where(
            in_scope(_calculations, tx.scope),
            _calculations.c.subscription_id == calculation.subscription_id,
            _calculations.c.billing_period_id == calculation.billing_period_id,
            _calculations.c.component_id == calculation.component_id,
            _calculations.c.superseded_by_calculation_id.is_not(None),
        )
        rows = (await tx.sa.execute(statement)).mappings()
        by_successor: dict[UUID | None, list[KeptCalculation]] = {}
        for row in rows:
            superseded = to_calculation(row)
            by_successor.setdefault(superseded.superseded_by_id, []).append(superseded)
        return _chain(calculation, by_successor)

    async def list_calculations(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
        component_id: UUID | None,
        status: CalculationStatus | None,
    ) -> Page[KeptCalculation]:
        """Return a page of a subscription's calculations, oldest first."""
        statement = sa.select(_calculations).where(
            in_scope(_calculations, tx.scope),
            _calculations.c.subscription_id == subscription_id,
        )
        if billing_period_id is not None:
            statement = statement.where(_calculations.c.billing_period_id == billing_period_id)
        if component_id is not None:
            statement = statement.where(_calculations.c.component_id == component_id)
        if status is not None:
            statement = statement.where(_calculations.c.status == status)
        page = page_of(statement, [_calculations.c.id], request)
        rows = (await tx.sa.execute(page)).mappings().all()
        return to_page(rows, request, decode=to_calculation, key=lambda row: (row["id"],))


def _chain(
    calculation: KeptCalculation, by_successor: Mapping[UUID | None, Sequence[KeptCalculation]]
) -> list[KeptCalculation]:
    """Follow the names of successors backwards; an estimate may stand beside what it led to."""
    found: list[KeptCalculation] = []
    latest = [calculation]
    while latest and len(found) < _MAX_CHAIN:
        before = [earlier for one in latest for earlier in by_successor.get(one.id, ())]
        latest = sorted(before, key=lambda one: one.id, reverse=True)
        found += latest
    return found


def to_calculation(row: Row) -> KeptCalculation:
    """Return the calculation in a row of ``calculations``."""
    return KeptCalculation(
        id=row["id"],
        calculation_run_id=row["calculation_run_id"],
        billing_run_id=row["billing_run_id"],
        recalculation_id=row["recalculation_id"],
        subscription_id=row["subscription_id"],
        billing_period_id=row["billing_period_id"],
        component_id=row["component_id"],
        usage_meter_id=row["usage_meter_id"],
        calculation_type=CalculationType(row["calculation_type"]),
        status=CalculationStatus(row["status"]),
        total_quantity=row["total_quantity"],
        billable_quantity=row["billable_quantity"],
        unit_price=row["unit_price"],
        total_raw_usage_minor=row["total_raw_usage_amount"],
        credits_applied_minor=row["credits_applied_amount"],
        currency=row["currency"],
        superseded_by_id=row["superseded_by_calculation_id"],
        source_invoice_id=row["source_invoice_id"] or "",
        source_credit_note_id=row["source_credit_note_id"] or "",
        notes=row["notes"] or "",
        calculated_at=row["calculated_at"],
    )
