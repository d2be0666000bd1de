"""Write-offs."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.errors import ResourceNotFound
from billing.domain.pages import Page, PageRequest
from billing.domain.write_offs import WriteOff
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, page_of, scope_values, to_page

_write_offs = tables.write_offs

_RECOVER: Final = """
UPDATE write_offs SET recovered_amount = recovered_amount + $4, updated_at = $5
WHERE tenant_id = $1 AND livemode = $2 AND id = $3
"""


class WriteOffStore:
    """Reads and writes ``write_offs``."""

    async def insert_write_off(self, tx: Transaction, write_off: WriteOff) -> None:
        """Record a write-off; its entry comes next."""
        w = write_off
        await tx.sa.execute(
            sa.insert(_write_offs).values(
                **scope_values(tx.scope),
                id=w.id,
                subscription_id=w.subscription_id,
                billing_period_id=w.billing_period_id,
                amount=w.amount_minor,
                recovered_amount=w.recovered_minor,
                currency=w.currency,
                reason=w.reason,
                written_off_by_user_id=w.written_off_by_user_id or None,
                ledger_transaction_id=w.ledger_transaction_id,
                created_at=w.created_at,
                updated_at=w.updated_at,
            )
        )

    async def update_recovered(
        self, tx: Transaction, write_off_id: UUID, amount_minor: int, *, now: datetime
    ) -> None:
        """Count more of a write-off as owed again; the database refuses more than there is."""
        await tx.pg.execute(
            _RECOVER, tx.scope.tenant_id, tx.scope.livemode, write_off_id, amount_minor, now
        )

    async def get_write_off(self, tx: Transaction, write_off_id: UUID) -> WriteOff:
        """Return a write-off; raises ResourceNotFound."""
        statement = _all(tx).where(_write_offs.c.id == write_off_id)
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="write-off",
                resource_id=identifiers.to_typeid(identifiers.WRITE_OFF, write_off_id),
            )
        return _to_write_off(row)

    async def list_of_period(
        self, tx: Transaction, *, subscription_id: UUID, billing_period_id: UUID
    ) -> list[WriteOff]:
        """Return the write-offs of a period of which something is left, oldest first."""
        statement = (
            _all(tx)
            .where(
                _write_offs.c.subscription_id == subscription_id,
                _write_offs.c.billing_period_id == billing_period_id,
                _write_offs.c.recovered_amount < _write_offs.c.amount,
            )
            .order_by(_write_offs.c.id)
        )
        return [_to_write_off(row) for row in (await tx.sa.execute(statement)).mappings()]

    async def list_write_offs(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
    ) -> Page[WriteOff]:
        """Return a page of a subscription's write-offs, oldest first."""
        statement = _all(tx).where(_write_offs.c.subscription_id == subscription_id)
        if billing_period_id is not None:
            statement = statement.where(_write_offs.c.billing_period_id == billing_period_id)
        page = page_of(statement, [_write_offs.c.id], request)
        rows = (await tx.sa.execute(page)).mappings().all()
        return to_page(rows, request, decode=_to_write_off, key=lambda row: (row["id"],))


def _all(tx: Transaction) -> sa.Select[Any]:
    return sa.select(_write_offs).where(in_scope(_write_offs, tx.scope))


def _to_write_off(row: Row) -> WriteOff:
    return WriteOff(
        id=row["id"],
        subscription_id=row["subscription_id"],
        billing_period_id=row["billing_period_id"],
        amount_minor=row["amount"],
        recovered_minor=row["recovered_amount"],
        currency=row["currency"],
        reason=row["reason"],
        written_off_by_user_id=row["written_off_by_user_id"] or "",
        ledger_transaction_id=row["ledger_transaction_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
