"""All rows of a tenant, to see that nothing was written."""

from typing import Final

from billing.store.tables.columns import metadata
from tests.factories.client import BillingClient
from tests.factories.ledger_book import connected

_ANSWERS: Final = "idempotent_requests"
"""Every mutation leaves its answer there."""


async def rows_of(url: str, client: BillingClient) -> dict[str, list[str]]:
    """Return all that the database holds of a caller's tenant, by table, but answers."""
    rows = {}
    async with connected(url) as connection:
        for table in metadata.sorted_tables:
            if "tenant_id" in table.columns and table.name != _ANSWERS:
                records = await connection.fetch(
                    f"SELECT t::text FROM {table.name} t WHERE tenant_id = $1 ORDER BY 1",
                    client.tenant_id,
                )
                rows[table.name] = [record["t"] for record in records]
    assert rows["subscriptions"], "a tenant without rows proves nothing"
    return rows
