"""The tenants that have data."""

from datetime import datetime

from sqlalchemy.dialects.postgresql import insert

from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import scope_values


class TenantStore:
    """Reads and writes ``tenants``."""

    async def insert_tenant(self, tx: Transaction, *, now: datetime) -> None:
        """List the transaction's scope, if it is new."""
        await tx.sa.execute(
            insert(tables.tenants)
            .values(**scope_values(tx.scope), created_at=now)
            .on_conflict_do_nothing()
        )
