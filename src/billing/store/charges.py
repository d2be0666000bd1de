"""Charges as they are kept."""

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.billing import ChargeType
from billing.domain.charges import KeptCharge
from billing.domain.errors import ResourceNotFound
from billing.domain.pages import Page, PageRequest
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, page_of, to_page

_charges = tables.charges


class ChargeStore:
    """Reads ``charges``. Their ids tell the order in which they were made."""

    async def get_charge(self, tx: Transaction, charge_id: UUID) -> KeptCharge:
        """Return a charge; raises ResourceNotFound."""
        statement = sa.select(_charges).where(
            in_scope(_charges, tx.scope), _charges.c.id == charge_id
        )
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="charge", resource_id=identifiers.to_typeid(identifiers.CHARGE, charge_id)
            )
        return _to_charge(row)

    async def list_charges(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
    ) -> Page[KeptCharge]:
        """Return a page of a subscription's charges, oldest first."""
        statement = _charges_of(tx, subscription_id, billing_period_id)
        rows = (await tx.sa.execute(page_of(statement, [_charges.c.id], request))).mappings().all()
        return to_page(rows, request, decode=_to_charge, key=lambda row: (row["id"],))

    async def list_lines(
        self, tx: Transaction, *, subscription_id: UUID, billing_period_id: UUID
    ) -> tuple[KeptCharge, ...]:
        """Return all charges of a period, oldest first: few for each execution."""
        statement = _charges_of(tx, subscription_id, billing_period_id).order_by(_charges.c.id)
        return tuple(_to_charge(row) for row in (await tx.sa.execute(statement)).mappings())


def _charges_of(
    tx: Transaction, subscription_id: UUID, billing_period_id: UUID | None
) -> sa.Select[Any]:
    statement = sa.select(_charges).where(
        in_scope(_charges, tx.scope), _charges.c.subscription_id == subscription_id
    )
    if billing_period_id is None:
        return statement
    return statement.where(_charges.c.billing_period_id == billing_period_id)


def _to_charge(row: Row) -> KeptCharge:
    return KeptCharge(
        id=row["id"],
        subscription_id=row["subscription_id"],
        billing_period_id=row["billing_period_id"],
        billing_run_id=row["billing_run_id"],
        recalculation_id=row["recalculation_id"],
        calculation_run_id=row["calculation_run_id"],
        charge_type=ChargeType(row["charge_type"]),
        component_id=row["component_id"],
        description=row["description"],
        quantity=row["quantity"],
        unit_price=row["unit_price"],
        amount_minor=row["amount"],
        currency=row["currency"],
        created_at=row["created_at"],
    )
