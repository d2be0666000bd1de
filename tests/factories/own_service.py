"""A service with a database of its own, for tests that change what the database allows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import grpc.aio

from billing.bootstrap import running_service
from billing.config import Settings
from billing.domain import identifiers
from billing.sandbox.development_key import DevelopmentKey
from billing.store.migrations import migrate
from tests.conftest import create_database, drop_database
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.ledger_book import connected

_ALLOW_NEGATIVE_PRICES = """
ALTER TABLE plan_versions DROP CONSTRAINT ck_plan_versions_base_price_amount
"""
_INSERT_VERSION = """
WITH last AS (
    SELECT * FROM plan_versions WHERE tenant_id = $1 AND plan_id = $2 ORDER BY version DESC LIMIT 1
), added AS (
    INSERT INTO plan_versions (tenant_id, livemode, id, plan_id, version, name, base_price_amount,
                               interval_unit, interval_count, created_at)
    SELECT tenant_id, livemode, gen_random_uuid(), plan_id, version + 1, name, $3,
           interval_unit, interval_count, created_at
    FROM last
    RETURNING id
)
INSERT INTO components (tenant_id, livemode, id, plan_version_id, position, usage_meter_id, name,
                        unit_price, included_units)
SELECT c.tenant_id, c.livemode, gen_random_uuid(), added.id, c.position, c.usage_meter_id, c.name,
       c.unit_price, c.included_units
FROM components c
JOIN last ON last.tenant_id = c.tenant_id AND last.id = c.plan_version_id
CROSS JOIN added
"""


@asynccontextmanager
async def own_service(
    postgres_url: str, settings: Settings, clock: FakeClock, key: DevelopmentKey
) -> AsyncIterator[tuple[BillingClient, str]]:
    """Run a service on a new database; yield a caller of a new tenant, and the database's URL."""
    url = await create_database(postgres_url)
    await migrate(url)
    own = replace(settings, database_url=url)
    try:
        async with running_service(own, api=True, worker=True, clock=clock) as running:
            assert running.address is not None
            async with grpc.aio.insecure_channel(
                running.address, options=[("grpc.enable_http_proxy", 0)]
            ) as channel:
                yield BillingClient(channel, key), url
    finally:
        await drop_database(postgres_url, url)


async def allow_negative_prices(url: str) -> None:
    """Take the check away that no base price is below zero, as no part of the service can."""
    async with connected(url) as connection:
        await connection.execute(_ALLOW_NEGATIVE_PRICES)


async def publish_past_the_service(
    url: str, client: BillingClient, plan_id: str, *, base_price_amount: int
) -> None:
    """Publish another version of a plan past the service, with the same components."""
    async with connected(url) as connection:
        await connection.execute(
            _INSERT_VERSION,
            client.tenant_id,
            identifiers.from_typeid(identifiers.PLAN, plan_id),
            base_price_amount,
        )
