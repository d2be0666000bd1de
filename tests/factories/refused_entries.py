"""A database that lets nobody write entries of one type, and tells so at the commit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.factories.ledger_book import connected

_REFUSE = """
CREATE FUNCTION refuse_entry() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE 'entries of type % are refused', NEW.entry_type; END $$;
CREATE CONSTRAINT TRIGGER refused_entries AFTER INSERT OR UPDATE ON ledger_entries
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
WHEN (NEW.tenant_id = '{tenant_id}' AND NEW.entry_type = '{entry_type}')
EXECUTE FUNCTION refuse_entry();
"""
_ALLOW = "DROP TRIGGER refused_entries ON ledger_entries; DROP FUNCTION refuse_entry()"


@asynccontextmanager
async def refused_entries(url: str, tenant_id: str, entry_type: str) -> AsyncIterator[None]:
    """Refuse a tenant's entries of a type, when all else of the transaction is written."""
    async with connected(url) as connection:
        await connection.execute(_REFUSE.format(tenant_id=tenant_id, entry_type=entry_type))
    try:
        yield
    finally:
        async with connected(url) as connection:
            await connection.execute(_ALLOW)
