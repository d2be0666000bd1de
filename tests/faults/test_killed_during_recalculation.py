"""The service dies while it recalculates: all of it is there or nothing, and one document."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import grpc.aio
import pytest

from billing.v1 import catalog_pb2
from tests.factories.billing_runs import (
    held_deliveries,
    metered_plan,
    one_period_ago,
    until,
)
from tests.factories.calculations import (
    amend,
    get_recalculation,
    recalculate,
    recalculations_of,
)
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import CreditedSubscription
from tests.factories.ledger_book import Connection
from tests.factories.locks import locked, until_somebody_is_stuck
from tests.factories.recalculation_audit import (
    assert_recalculations_explain,
    credit_notes_of,
    invoices_of_period,
)
from tests.factories.service_process import Deployment, ServiceProcess
from tests.factories.tenant_rows import rows_of

REQUEST_ID = "recalculation-1"
UNITS = pytest.mark.parametrize("units", ["130", "60"], ids=["invoice", "credit note"])


class Corrected:
    """A subscription with an invoiced period of 100 units, of which one event was corrected."""

    def __init__(self, held: CreditedSubscription, period_id: str) -> None:
        self.held = held
        self.period_id = period_id

    def at(self, client: BillingClient) -> "Corrected":
        """The same, asked for at another process."""
        return Corrected(replace(self.held, client=client), self.period_id)

    def recalculation(self) -> "asyncio.Task[object]":
        """A call that is under way."""
        return asyncio.create_task(self.recalculate())

    async def recalculate(self) -> object:
        """Recalculate the period; always the same request."""
        return await recalculate(
            self.held.client, self.held.id, self.period_id, request_id=REQUEST_ID
        )

    async def delivered(self) -> bool:
        """Whether all documents are delivered."""
        listed = await recalculations_of(self.held.client, self.held.id)
        return all(d.document_id for r in listed for d in r.documents)

    def documents(self) -> int:
        """How many documents the invoicing service has made of it."""
        return len(invoices_of_period(self.held, self.period_id)[1:]) + len(
            credit_notes_of(self.held)
        )

    async def audit(self, units: str) -> None:
        """One recalculation, one document, and all else as if nothing had happened."""
        [told] = await recalculations_of(self.held.client, self.held.id)
        assert (await self.held.client.balance(self.held.id)).invoiced_amount == int(units)
        assert self.documents() == len(told.documents) == 1
        await assert_recalculations_explain(self.held)
        await self.recalculate()
        assert await get_recalculation(self.held.client, told.id) == told
        assert self.documents() == 1


async def corrected_to(units: str, deployment: Deployment, client: BillingClient) -> Corrected:
    """Make it, by the clock on the wall."""
    began = one_period_ago()
    plan = await metered_plan(
        client,
        base_price_amount=0,
        unit_price="1",
        included="0",
        late_usage_policy=catalog_pb2.LATE_USAGE_POLICY_HOLD,
    )
    subscription = await client.subscribe(plan.plan_id, started_at=began)
    event = await client.use(subscription.id, plan.meter_id, "100", began + timedelta(days=1))
    [result] = (await client.run_billing()).results
    await amend(client, event.usage_event_id, units)
    held = CreditedSubscription(
        client,
        FakeClock(),
        deployment.invoicing,
        subscription.id,
        plan.plan_id,
        [plan.meter_id],
        [],
    )
    return Corrected(held, result.billing_period_id)


@asynccontextmanager
async def to_be_killed(
    deployment: Deployment, units: str
) -> AsyncIterator[tuple[ServiceProcess, Corrected]]:
    """A process, and what it is to recalculate."""
    async with (
        deployment.running() as process,
        deployment.client(process.address) as client,
    ):
        yield process, await corrected_to(units, deployment, client)


@UNITS
async def test_killed_before_the_document_is_made(deployment: Deployment, units: str) -> None:
    """The recalculation is committed: the next process delivers by itself."""
    async with to_be_killed(deployment, units) as (process, corrected):
        with held_deliveries(deployment.invoicing) as gate:
            call = corrected.recalculation()
            await gate.until_waiting(1)
            await process.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await call
    # What waited may still be made, though nobody is there to be told.
    assert corrected.documents() <= 1

    async with deployment.running_here(like=corrected.held.client) as client:
        revived = corrected.at(client)
        await until(revived.delivered)
        await revived.audit(units)


@UNITS
async def test_killed_after_the_document_is_made_and_before_its_record(
    deployment: Deployment, owner: Connection, units: str
) -> None:
    async with to_be_killed(deployment, units) as (process, corrected):
        with held_deliveries(deployment.invoicing) as gate:
            call = corrected.recalculation()
            await gate.until_waiting(1)
            async with locked(owner, "SELECT FROM recalculation_documents FOR UPDATE"):
                gate.open()
                await until_somebody_is_stuck(owner)
                await process.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await call
    assert corrected.documents() == 1
    recorded = "SELECT count(document_id) FROM recalculation_documents"
    assert await owner.fetchval(recorded) == 0

    async with deployment.running_here(like=corrected.held.client) as client:
        revived = corrected.at(client)
        await until(revived.delivered)
        await revived.audit(units)


async def test_killed_in_the_middle_of_the_transaction(
    deployment: Deployment, owner: Connection
) -> None:
    """Nothing of it is there: a repeat of the request does all of it."""
    async with to_be_killed(deployment, "60") as (process, corrected):
        before = await rows_of(deployment.database_url, corrected.held.client)
        async with locked(owner, "SELECT FROM billing_periods FOR UPDATE"):
            call = corrected.recalculation()
            await until_somebody_is_stuck(owner)
            await process.kill()
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        assert await rows_of(deployment.database_url, corrected.held.client) == before

    async with deployment.running_here(like=corrected.held.client) as client:
        revived = corrected.at(client)
        await revived.recalculate()
        await revived.audit("60")
