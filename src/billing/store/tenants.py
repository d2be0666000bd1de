"""The tenants that have data."""

from datetime import datetime

import asyncpg
from sqlalchemy.dialects.postgresql import insert

from billing.domain.scope import Scope
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

    async def list_scopes(self, pg: "asyncpg.Connection[asyncpg.Record]") -> list[Scope]:
        """Return every scope that has data: the table is outside row security."""
        records = await pg.fetch("SELECT tenant_id, livemode FROM tenants ORDER BY 1, 2")
        return [Scope(*record.values()) for record in records]
