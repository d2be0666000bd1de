"""Usage events a second into pay-as-you-go subscriptions, whose credits pay them at once.

As ``ingestion``; what the floor writes again are the credits' applications and entries too.
"""

from collections.abc import Iterable

import asyncpg
import uvloop

from benchmarks import ingestion
from benchmarks.ingestion import Calls, WrittenTable
from benchmarks.surroundings import Surroundings, surroundings
from billing.v1 import subscription_pb2
from tests.factories.credits import grant_credit

AMPLE = 1_000_000_000
PARENTS = (*ingestion.PARENTS, "usage_credits", "usage_credit_balances")
WRITTEN = (
    WrittenTable("usage_events"),
    WrittenTable("usage_credit_applications"),
    WrittenTable("ledger_entries", "entry_type = 'usage_cost'"),
    WrittenTable("ledger_entries", "entry_type = 'credit_applied_to_usage'"),
)
REALTIME = subscription_pb2.CREDIT_APPLICATION_MODE_REALTIME


async def main() -> None:
    """Give each subscription more credit than its usage costs, and measure as ``ingestion``."""
    async with surroundings() as around:
        # Nothing is included: each call has each of its subscriptions use its credit.
        calls = await ingestion.prepare(around, included_units="0", mode=REALTIME)
        await _grant(around, calls)
        await ingestion.measure("realtime_ingestion", around, calls, PARENTS, WRITTEN)
        await _require_all_paid(around, calls)


async def _grant(around: Surroundings, calls: Iterable[Calls]) -> None:
    """One credit a subscription, in effect since the first usage."""
    for own in calls:
        events = own[0].events
        for subscription_id in {event.subscription_id for event in events}:
            await grant_credit(
                around.client, subscription_id, AMPLE, effective_at=events[0].event_timestamp
            )


async def _require_all_paid(around: Surroundings, calls: Iterable[Calls]) -> None:
    """Make sure that what was measured is what it says: credits have paid all usage."""
    connection = await asyncpg.connect(around.database_url)
    record = await connection.fetchrow(
        "SELECT sum(-amount) FILTER (WHERE entry_type = 'usage_cost'),"
        " sum(amount) FILTER (WHERE entry_type = 'credit_applied_to_usage'),"
        " count(*) FILTER (WHERE entry_type = 'credit_applied_to_usage')"
        " FROM ledger_entries WHERE tenant_id = $1",
        around.client.tenant_id,
    )
    await connection.close()
    assert record is not None
    usage, paid, applications = record
    assert usage == paid > 0
    assert applications == sum(
        len({event.subscription_id for event in request.events}) for own in calls for request in own
    )


if __name__ == "__main__":
    uvloop.run(main())
