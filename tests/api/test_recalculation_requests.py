"""Who may recalculate what, how a request is repeated, and how recalculations are listed."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import calculation_pb2 as pb
from billing.v1 import usage_pb2
from tests.factories.calculations import (
    ACTIVE,
    SUPERSEDED,
    amend,
    calculations_of,
    get_calculation,
    get_recalculation,
    recalculate,
    recalculations_of,
)
from tests.factories.client import BillingClient, new_tenant
from tests.factories.credited_subscription import CreditedSubscription, february
from tests.factories.recalculation_audit import assert_recalculations_explain
from tests.factories.refusals import Refusal, refusal_of
from tests.factories.tenant_rows import rows_of

UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"
UNKNOWN_CALCULATION = "calc_01h455vb4pex5vsknk084sn02q"
UNKNOWN_RUN = "calcrun_01h455vb4pex5vsknk084sn02q"


class Period:
    """February of a subscription, invoiced; one more event waits to be taken in."""

    def __init__(self, held: CreditedSubscription, url: str, period_id: str) -> None:
        self.held = held
        self.client = held.client
        self.id = period_id
        self._url = url

    async def recalculate(self, **fields: Any) -> pb.RecalculateBillingPeriodResponse:
        """Recalculate it."""
        return await recalculate(self.client, self.held.id, self.id, **fields)

    async def refused(self, call: Awaitable[object]) -> Refusal:
        """How a call is refused; fails unless it leaves everything as it was."""
        before = await rows_of(self._url, self.client)
        refusal = await refusal_of(call)
        assert await rows_of(self._url, self.client) == before
        return refusal


@pytest.fixture
async def period(held: CreditedSubscription, database_url: str) -> Period:
    """The period."""
    await held.use(100, february(3))
    billed = await held.bill()
    await held.use(40, february(20))
    return Period(held, database_url, billed.billing_period_id)


class TestRefusals:
    async def test_an_open_period(self, period: Period) -> None:
        open_id = (await period.held.get()).current_period_id
        refusal = await period.refused(period.recalculate(billing_period_id=open_id))
        assert refusal.kind == ("FAILED_PRECONDITION", "BILLING_PERIOD_NOT_INVOICED")
        assert refusal.metadata["status"] == "open"
        assert refusal.metadata["billing_period_id"] == open_id

    async def test_a_billed_period_without_its_invoice(
        self, held: CreditedSubscription, invoicing: ReferenceInvoicingServer
    ) -> None:
        await held.use(100, february(3))
        invoicing.error_rate = 1.0
        billed = await held.bill("run-1")
        refusal = await refusal_of(recalculate(held.client, held.id, billed.billing_period_id))
        assert refusal.kind == ("FAILED_PRECONDITION", "BILLING_PERIOD_NOT_INVOICED")
        assert refusal.metadata["status"] == "billed"
        await held.use(9, february(20))
        invoicing.error_rate = 0.0
        await held.client.run_billing("run-2")
        answer = await recalculate(held.client, held.id, billed.billing_period_id)
        assert answer.recalculation.net_change_amount == 9
        await assert_recalculations_explain(held)

    async def test_unknown_things(self, period: Period) -> None:
        refusal = await period.refused(period.recalculate(subscription_id=UNKNOWN_SUBSCRIPTION))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
        refusal = await period.refused(period.recalculate(billing_period_id=UNKNOWN_PERIOD))
        assert refusal.kind == ("NOT_FOUND", "BILLING_PERIOD_NOT_FOUND")
        refusal = await period.refused(get_recalculation(period.client, UNKNOWN_RUN))
        assert refusal.kind == ("NOT_FOUND", "RECALCULATION_NOT_FOUND")
        refusal = await period.refused(get_calculation(period.client, UNKNOWN_CALCULATION))
        assert refusal.kind == ("NOT_FOUND", "CALCULATION_NOT_FOUND")
        refusal = await period.refused(recalculations_of(period.client, UNKNOWN_SUBSCRIPTION))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")

    async def test_another_subscriptions_period(self, period: Period) -> None:
        other = await period.client.subscribe(period.held.plan_id, started_at=february(1))
        refusal = await period.refused(period.recalculate(subscription_id=other.id))
        assert refusal.kind == ("NOT_FOUND", "BILLING_PERIOD_NOT_FOUND")

    async def test_other_tenants_and_modes_see_nothing(self, period: Period) -> None:
        told = (await period.recalculate()).recalculation
        stranger = period.client.for_tenant(new_tenant())
        for client in (stranger, period.client.in_test_mode()):
            for call in (
                recalculate(client, period.held.id, period.id),
                get_recalculation(client, told.id),
                recalculations_of(client, period.held.id),
                calculations_of(client, period.held.id),
            ):
                refusal = await period.refused(call)
                assert refusal.code == "NOT_FOUND"
        foreign = recalculate(
            stranger, period.held.id, period.id, tenant_id=period.client.tenant_id
        )
        assert (await period.refused(foreign)).code == "PERMISSION_DENIED"

    async def test_each_call_needs_its_capability(self, period: Period) -> None:
        told = (await period.recalculate()).recalculation
        reader = period.client.with_capabilities("billing.calculation:read")
        writer = period.client.with_capabilities("billing.calculation:write")
        refusal = await period.refused(recalculate(reader, period.held.id, period.id))
        assert refusal.kind == ("PERMISSION_DENIED", "CAPABILITY_MISSING")
        for read in (
            get_recalculation(writer, told.id),
            recalculations_of(writer, period.held.id),
            calculations_of(writer, period.held.id),
            get_calculation(writer, UNKNOWN_CALCULATION),
        ):
            refusal = await period.refused(read)
            assert refusal.kind == ("PERMISSION_DENIED", "CAPABILITY_MISSING")
        assert await get_recalculation(reader, told.id) == told
        assert not (await recalculate(writer, period.held.id, period.id)).changed

    async def test_malformed_requests(self, period: Period) -> None:
        refusal = await period.refused(
            period.recalculate(
                subscription_id="sub_1", billing_period_id="", reason="", request_id=""
            )
        )
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["subscription_id", "billing_period_id", "reason", "request_id"]
        refusal = await period.refused(period.recalculate(reason="x" * 501))
        assert refusal.fields == ["reason"]

    async def test_the_longest_reason_reaches_the_invoicing_service(self, period: Period) -> None:
        reason = "ü" * 500
        told = (await period.recalculate(reason=reason)).recalculation
        assert told.documents[0].document_id
        [event, *_] = await events_of(period)
        await amend(period.client, event, "10")
        told = (await period.recalculate(reason=reason)).recalculation
        assert all(document.document_id for document in told.documents)
        await assert_recalculations_explain(period.held)


async def events_of(period: Period) -> list[str]:
    """The ids of the usage events, oldest first."""
    answer = await period.client.usage.ListUsageEvents(
        usage_pb2.ListUsageEventsRequest(
            tenant_id=period.client.tenant_id, subscription_id=period.held.id
        )
    )
    return [event.id for event in answer.usage_events]


class TestRepeats:
    async def test_the_same_request_is_answered_the_same(self, period: Period) -> None:
        first = await period.recalculate(request_id="once")
        assert await period.recalculate(request_id="once") == first
        assert len(await recalculations_of(period.client, period.held.id)) == 1

    async def test_also_where_nothing_changed(self, period: Period) -> None:
        await period.recalculate()
        assert not (await period.recalculate(request_id="once")).changed
        await period.held.use(1, february(21))
        again = await period.recalculate(request_id="once")
        assert not again.changed
        assert (await period.recalculate(request_id="twice")).changed

    async def test_a_later_recalculation_leaves_the_answer_as_it_is(self, period: Period) -> None:
        first = await period.recalculate(request_id="once")
        await period.held.use(1, february(21))
        await period.recalculate(request_id="twice")
        again = await period.recalculate(request_id="once")
        assert again.recalculation == first.recalculation

    async def test_other_content_needs_another_request_id(self, period: Period) -> None:
        await period.recalculate(request_id="once")
        open_id = (await period.held.get()).current_period_id
        for changed in ({"reason": "another"}, {"billing_period_id": open_id}):
            refusal = await period.refused(period.recalculate(request_id="once", **changed))
            assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")

    async def test_a_refused_request_may_be_repeated(self, held: CreditedSubscription) -> None:
        period_id = (await held.get()).current_period_id
        await refusal_of(recalculate(held.client, held.id, period_id, request_id="once"))
        await held.bill()
        await held.use(3, february(20))
        answer = await recalculate(held.client, held.id, period_id, request_id="once")
        assert answer.recalculation.net_change_amount == 3

    async def test_five_at_once_are_one(self, period: Period) -> None:
        answers = await asyncio.gather(*[period.recalculate(request_id="once") for _ in range(5)])
        assert len({answer.recalculation.id for answer in answers}) == 1
        assert all(answer.changed for answer in answers)
        assert len(await recalculations_of(period.client, period.held.id)) == 1
        await assert_recalculations_explain(period.held)


class TestLists:
    @pytest.fixture
    async def listed(self, period: Period) -> Period:
        """Recalculated three times."""
        for day in (21, 22, 23):
            await period.held.use(1, february(day))
            await period.recalculate()
        return period

    async def test_pages_hold_every_recalculation_once(self, listed: Period) -> None:
        found, token = [], ""
        for size in (2, 1):
            rows, token = await page(listed.client, listed.held.id, page_size=2, page_token=token)
            assert len(rows) == size
            found += rows
        assert token == ""
        assert found == await recalculations_of(listed.client, listed.held.id)
        assert [r.raw_change_amount for r in found] == [41, 1, 1]
        assert all(len(r.documents) == 1 for r in found)

    async def test_pages_hold_every_calculation_once(self, listed: Period) -> None:
        all_of_them = await calculations_of(listed.client, listed.held.id)
        assert len(all_of_them) == 8
        found, token, calls = [], "", 0
        while token or not calls:
            answer = await listed.client.calculations.ListCalculations(
                pb.ListCalculationsRequest(
                    tenant_id=listed.client.tenant_id,
                    subscription_id=listed.held.id,
                    page_size=3,
                    page_token=token,
                )
            )
            found += answer.calculations
            token = answer.next_page_token
            calls += 1
        assert (calls, found) == (3, all_of_them)

    async def test_calculations_by_status_and_period(self, listed: Period) -> None:
        of: Callable[..., Awaitable[list[pb.Calculation]]] = calculations_of
        by_status = {
            status: await of(listed.client, listed.held.id, status=status)
            for status in (ACTIVE, SUPERSEDED)
        }
        assert [len(found) for found in by_status.values()] == [2, 6]
        open_id = (await listed.held.get()).current_period_id
        for filters in ({"billing_period_id": open_id}, {"component_id": UNKNOWN_COMPONENT}):
            assert await of(listed.client, listed.held.id, **filters) == []
        found = await recalculations_of(listed.client, listed.held.id, billing_period_id=open_id)
        assert found == []

    async def test_a_token_is_for_its_filters_alone(self, listed: Period) -> None:
        _, token = await page(listed.client, listed.held.id, page_size=1)
        refusal = await refusal_of(
            page(listed.client, listed.held.id, billing_period_id=listed.id, page_token=token)
        )
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


UNKNOWN_COMPONENT = "component_01h455vb4pex5vsknk084sn02q"


async def page(
    client: BillingClient, subscription_id: str, **fields: Any
) -> tuple[list[pb.Recalculation], str]:
    """A page of recalculations, and the token of the next."""
    answer = await client.calculations.ListRecalculations(
        pb.ListRecalculationsRequest(
            tenant_id=client.tenant_id, subscription_id=subscription_id, **fields
        )
    )
    return list(answer.recalculations), answer.next_page_token
