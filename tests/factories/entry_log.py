"""What the database does to ledger entries, row by row as it happens, and their calculations."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from billing.domain import identifiers
from tests.factories.ledger_book import connected

_CREATE = """
CREATE TABLE seen_entries (
    number BIGINT GENERATED ALWAYS AS IDENTITY, tenant_id TEXT, transaction xid8, operation TEXT,
    id UUID, entry_type TEXT, status TEXT, is_discarded BOOLEAN
);
CREATE FUNCTION see_entry() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO public.seen_entries
        (tenant_id, transaction, operation, id, entry_type, status, is_discarded)
    VALUES (NEW.tenant_id, pg_current_xact_id(), lower(TG_OP), NEW.id, NEW.entry_type, NEW.status,
            NEW.discarded_at IS NOT NULL);
    RETURN NULL;
END $$;
CREATE TRIGGER seen AFTER INSERT OR UPDATE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION see_entry();
"""
_DROP = """
DROP TRIGGER seen ON ledger_entries;
DROP FUNCTION see_entry;
DROP TABLE seen_entries;
"""
_LIST = "SELECT * FROM seen_entries WHERE tenant_id = $1 ORDER BY number"
_CALCULATIONS = """
SELECT component_id, calculation_run_id, total_raw_usage_amount, credits_applied_amount,
       net_billed_amount, status
FROM calculations c
WHERE tenant_id = $1 AND subscription_id = $2
ORDER BY calculated_at, (SELECT position FROM components WHERE id = c.component_id)
"""


class SeenEntry(NamedTuple):
    """A row of the ledger as it was inserted or updated; the id as callers know it."""

    transaction: str
    operation: str
    id: str
    entry_type: str
    status: str
    is_discarded: bool


class Calculation(NamedTuple):
    """A snapshot of a component's bill, ids as callers know them."""

    component_id: str
    calculation_run_id: str
    total_raw_usage_amount: int
    credits_applied_amount: int
    net_billed_amount: int
    status: str


@dataclass(frozen=True)
class EntryLog:
    """What was done to the entries of a tenant since the log began."""

    url: str
    tenant_id: str

    async def read(self) -> Sequence[SeenEntry]:
        """Return what was done, in order."""
        async with connected(self.url) as connection:
            rows = await connection.fetch(_LIST, self.tenant_id)
        return [
            SeenEntry(
                str(row["transaction"]),
                row["operation"],
                identifiers.to_typeid(identifiers.LEDGER_ENTRY, row["id"]),
                row["entry_type"],
                row["status"],
                row["is_discarded"],
            )
            for row in rows
        ]


@asynccontextmanager
async def entry_log(url: str, tenant_id: str) -> AsyncIterator[EntryLog]:
    """Note what becomes of the tenant's entries, by a trigger of the database."""
    async with connected(url) as connection:
        await connection.execute(_CREATE)
    try:
        yield EntryLog(url, tenant_id)
    finally:
        async with connected(url) as connection:
            await connection.execute(_DROP)


async def calculations_of(url: str, tenant_id: str, subscription_id: str) -> list[Calculation]:
    """Return the calculations of a subscription, oldest period first, components in their order."""
    async with connected(url) as connection:
        rows = await connection.fetch(
            _CALCULATIONS,
            tenant_id,
            identifiers.from_typeid(identifiers.SUBSCRIPTION, subscription_id),
        )
    return [
        Calculation(
            identifiers.to_typeid(identifiers.COMPONENT, row["component_id"]),
            identifiers.to_typeid(identifiers.CALCULATION_RUN, row["calculation_run_id"]),
            row["total_raw_usage_amount"],
            row["credits_applied_amount"],
            row["net_billed_amount"],
            row["status"],
        )
        for row in rows
    ]
