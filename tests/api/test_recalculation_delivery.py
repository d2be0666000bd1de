"""Documents that cannot be delivered at once: nothing is lost, nothing is made twice."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from billing.bootstrap import RunningService, Stores, wire_delivery
from billing.domain.scope import Scope
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.services.recalculation_delivery import RecalculationDelivery
from billing.v1 import calculation_pb2 as pb
from billing.v1 import usage_pb2
from tests.factories.billing_runs import failing_after, held_deliveries
from tests.factories.calculations import (
    amend,
    calculations_of,
    get_recalculation,
    recalculate,
    recalculations_of,
)
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import CreditedSubscription, february
from tests.factories.credits import create_payment
from tests.factories.invoicing import CLIENT_SETTINGS, invoicing_client
from tests.factories.recalculation_audit import (
    assert_recalculations_explain,
    credit_notes_of,
    invoiced_by,
    invoices_of_period,
)
from tests.factories.refusals import refusal_of

KINDS = {"invoice": "130", "credit note": "60"}
"""What 100 units are amended to, so that the document is of the kind."""

ROUND = RecalculationDelivery.deliver_undelivered
Round = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_round_but_the_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's own worker, which comes every minute, keeps out of it."""

    async def nothing(_: RecalculationDelivery) -> None:
        pass

    monkeypatch.setattr(RecalculationDelivery, "deliver_undelivered", nothing)


@pytest.fixture
def deliver(
    service: RunningService, invoicing: ReferenceInvoicingServer, clock: FakeClock
) -> Round:
    """A round of the worker, which comes every minute."""

    async def deliver_once() -> None:
        async with invoicing_client(invoicing.address) as calls:
            await ROUND(wire_delivery(service.database, Stores(), calls, clock))

    return deliver_once


@pytest.fixture
async def period_id(held: CreditedSubscription) -> str:
    """February, which was invoiced with 100 for one event."""
    await held.use(100, february(3))
    return (await held.bill()).billing_period_id


async def amended_to(held: CreditedSubscription, units: str) -> None:
    """Let the event of February be of so many units."""
    [event] = (
        await held.client.usage.ListUsageEvents(
            usage_pb2.ListUsageEventsRequest(
                tenant_id=held.client.tenant_id, subscription_id=held.id
            )
        )
    ).usage_events
    await amend(held.client, event.id, units)


def call_count(invoicing: ReferenceInvoicingServer) -> int:
    """How many documents were asked for so far."""
    return (
        invoicing.create_call_count + invoicing.credit_note_call_count + invoicing.void_call_count
    )


def made(held: CreditedSubscription, period_id: str) -> tuple[int, int, int]:
    """How many additional invoices, credit notes and voids there are."""
    additional = invoices_of_period(held, period_id)[1:]
    voided = [invoice for invoice in additional if invoice.HasField("voided_at")]
    return len(additional), len(credit_notes_of(held)), len(voided)


@pytest.mark.parametrize("units", KINDS.values(), ids=KINDS)
async def test_a_recalculation_stands_while_invoicing_is_down(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    deliver: Round,
    units: str,
) -> None:
    await amended_to(held, units)
    invoicing.error_rate = 1.0

    answer = await recalculate(held.client, held.id, period_id, request_id="once")

    assert answer.changed
    [document] = answer.recalculation.documents
    assert (document.document_id, document.HasField("delivered_at")) == ("", False)
    assert document.failure == (
        "UNAVAILABLE: error_rate: nothing was done; it is sent again every minute"
    )
    assert (await held.client.balance(held.id)).outstanding_amount == int(units)
    await assert_recalculations_explain(held, is_delivered=False)
    active = [c for c in answer.calculations if c.total_raw_usage_amount == int(units)]
    assert [(c.source_invoice_id, c.source_credit_note_id) for c in active] == [("", "")]
    refusal = await refusal_of(recalculate(held.client, held.id, period_id))
    assert refusal.kind == ("FAILED_PRECONDITION", "RECALCULATION_NOT_DELIVERED")
    assert refusal.metadata["document_id"] == document.id
    assert refusal.metadata["recalculation_id"] == answer.recalculation.id
    assert refusal.metadata["billing_period_id"] == period_id
    await deliver()
    assert made(held, period_id) == (0, 0, 0)

    invoicing.error_rate = 0.0
    await deliver()

    await assert_recalculations_explain(held)
    [delivered] = (await get_recalculation(held.client, answer.recalculation.id)).documents
    sources = [
        c.source_invoice_id or c.source_credit_note_id
        for c in await calculations_of(held.client, held.id)
        if c.calculation_run_id == answer.recalculation.id
    ]
    assert sources == [delivered.document_id] * 2
    asked = call_count(invoicing)
    await deliver()
    again = await recalculate(held.client, held.id, period_id, request_id="once")
    assert list(again.recalculation.documents) == [delivered]
    assert call_count(invoicing) == asked
    assert sum(made(held, period_id)) == 1
    assert not (await recalculate(held.client, held.id, period_id)).changed


@pytest.mark.parametrize("units", KINDS.values(), ids=KINDS)
async def test_a_repeat_of_the_request_delivers(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    units: str,
) -> None:
    await amended_to(held, units)
    invoicing.error_rate = 1.0
    answers = [
        await recalculate(held.client, held.id, period_id, request_id="once") for _ in range(2)
    ]
    invoicing.error_rate = 0.0
    answers.append(await recalculate(held.client, held.id, period_id, request_id="once"))
    assert len({answer.recalculation.id for answer in answers}) == 1
    assert [bool(a.recalculation.documents[0].document_id) for a in answers] == [
        False,
        False,
        True,
    ]
    assert answers[-1].recalculation.documents[0].failure == ""
    assert len(await recalculations_of(held.client, held.id)) == 1
    await assert_recalculations_explain(held)


@pytest.mark.parametrize("units", KINDS.values(), ids=KINDS)
async def test_a_lost_reply_makes_no_second_document(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    deliver: Round,
    units: str,
) -> None:
    await amended_to(held, units)
    invoicing.drop_reply_rate = 1.0
    answer = await recalculate(held.client, held.id, period_id)
    assert answer.recalculation.documents[0].document_id == ""
    assert sum(made(held, period_id)) == 1
    await deliver()
    invoicing.drop_reply_rate = 0.0
    await deliver()
    assert sum(made(held, period_id)) == 1
    await assert_recalculations_explain(held)


async def test_a_void_whose_reply_was_lost(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    deliver: Round,
) -> None:
    await amended_to(held, "130")
    await recalculate(held.client, held.id, period_id)
    await amended_to(held, "100")
    invoicing.drop_reply_rate = 1.0
    await recalculate(held.client, held.id, period_id)
    assert made(held, period_id) == (1, 0, 1)
    invoicing.drop_reply_rate = 0.0
    await deliver()
    assert made(held, period_id) == (1, 0, 1)
    await assert_recalculations_explain(held)


async def test_of_several_documents_the_rest_is_delivered_later(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    deliver: Round,
) -> None:
    for units in ("130", "150"):
        await amended_to(held, units)
        await recalculate(held.client, held.id, period_id)
    await amended_to(held, "90")
    with failing_after(invoicing, 1):
        answer = await recalculate(held.client, held.id, period_id, request_id="down")
    assert made(held, period_id) == (2, 0, 1)
    documents = answer.recalculation.documents
    assert [bool(d.document_id) for d in documents] == [True, False, False]
    # What comes after the one that failed was not tried.
    assert [bool(d.failure) for d in documents] == [False, True, False]
    with failing_after(invoicing, 1):
        await deliver()
    assert made(held, period_id) == (2, 0, 2)
    refusal = await refusal_of(recalculate(held.client, held.id, period_id))
    assert refusal.metadata["document_id"] == documents[2].id
    await deliver()
    assert made(held, period_id) == (2, 1, 2)
    await assert_recalculations_explain(held)


async def test_whoever_delivers_at_once_makes_one_document(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    deliver: Round,
) -> None:
    await amended_to(held, "130")
    invoicing.error_rate = 1.0
    await recalculate(held.client, held.id, period_id, request_id="once")
    invoicing.error_rate = 0.0
    with held_deliveries(invoicing) as gate:
        calls = [
            asyncio.ensure_future(call)
            for call in (
                deliver(),
                deliver(),
                recalculate(held.client, held.id, period_id, request_id="once"),
                recalculate(held.client, held.id, period_id, request_id="once"),
            )
        ]
        await gate.until_waiting(4)
        gate.open()
        await asyncio.gather(*calls)
    assert made(held, period_id) == (1, 0, 0)
    await assert_recalculations_explain(held)


async def test_a_caller_that_hangs_up_stops_nothing(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    deliver: Round,
) -> None:
    await amended_to(held, "130")
    with held_deliveries(invoicing) as gate:
        call = asyncio.ensure_future(recalculate(held.client, held.id, period_id))
        await gate.until_waiting(1)
        call.cancel()
        await asyncio.wait([call])
    assert (await held.client.balance(held.id)).outstanding_amount == 130
    await deliver()
    assert made(held, period_id) == (1, 0, 0)
    await assert_recalculations_explain(held)


async def test_money_moves_while_a_document_waits(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    deliver: Round,
) -> None:
    await amended_to(held, "60")
    invoicing.error_rate = 1.0
    await recalculate(held.client, held.id, period_id)
    await create_payment(held.client, held.id, 60, billing_period_id=period_id)
    assert (await held.client.balance(held.id)).outstanding_amount == 0
    await held.use(5, february(20))
    invoicing.error_rate = 0.0
    await deliver()
    answer = await recalculate(held.client, held.id, period_id)
    assert answer.recalculation.net_change_amount == 5
    assert invoiced_by(invoices_of_period(held, period_id)) == 65
    await assert_recalculations_explain(held)


async def test_what_is_refused_waits_for_somebody_to_mend_it(
    held: CreditedSubscription,
    period_id: str,
    invoicing: ReferenceInvoicingServer,
    deliver: Round,
) -> None:
    await amended_to(held, "60")
    invoicing.refused_customer_ids.add("cus-1")
    answer = await recalculate(held.client, held.id, period_id)
    [document] = answer.recalculation.documents
    assert document.failure.startswith("FAILED_PRECONDITION: customer cus-1 has no billing address")
    await deliver()
    [document] = (await get_recalculation(held.client, answer.recalculation.id)).documents
    assert document.document_id == ""
    invoicing.refused_customer_ids.clear()
    await deliver()
    assert made(held, period_id) == (0, 1, 0)
    await assert_recalculations_explain(held)


class TestRounds:
    """Ten subscriptions, each with a document that waits."""

    COUNT = 10

    @pytest.fixture
    async def waiting(
        self, held: CreditedSubscription, invoicing: ReferenceInvoicingServer
    ) -> list[pb.Recalculation]:
        """Their recalculations, oldest first; invoicing is down."""
        subscriptions = [
            await held.client.subscribe(
                held.plan_id, started_at=february(1), customer_id=f"cus-{number}"
            )
            for number in range(100, 100 + self.COUNT)
        ]
        await held.bill()
        recalculations = []
        invoicing.error_rate = 1.0
        for subscription in subscriptions:
            await held.client.use(subscription.id, held.calls, "5", february(3))
            period = await first_period_of(held.client, subscription.id)
            answer = await recalculate(held.client, subscription.id, period)
            recalculations.append(answer.recalculation)
        return recalculations

    async def delivered(self, held: CreditedSubscription, told: list[pb.Recalculation]) -> int:
        """How many of them are delivered by now."""
        now = [await get_recalculation(held.client, each.id) for each in told]
        return sum(bool(each.documents[0].document_id) for each in now)

    async def test_refused_documents_hold_up_nobody_else(
        self,
        held: CreditedSubscription,
        waiting: list[pb.Recalculation],
        invoicing: ReferenceInvoicingServer,
        deliver: Round,
    ) -> None:
        invoicing.error_rate = 0.0
        invoicing.refused_customer_ids.update(f"cus-{n}" for n in range(100, 99 + self.COUNT))
        await deliver()
        assert await self.delivered(held, waiting) == 1
        invoicing.refused_customer_ids.clear()
        await deliver()
        assert await self.delivered(held, waiting) == self.COUNT

    async def test_a_round_ends_early_while_nobody_answers(
        self,
        held: CreditedSubscription,
        waiting: list[pb.Recalculation],
        invoicing: ReferenceInvoicingServer,
        deliver: Round,
    ) -> None:
        asked = call_count(invoicing)
        await deliver()
        assert call_count(invoicing) - asked == 8 * CLIENT_SETTINGS.max_attempts
        invoicing.error_rate = 0.0
        await deliver()
        assert await self.delivered(held, waiting) == self.COUNT

    async def test_nobody_is_always_last_while_nobody_answers(
        self,
        waiting: list[pb.Recalculation],
        deliver: Round,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A round asks for 8 of 10, in any order: after 10 rounds, all but once in a million."""
        asked, deliver_one = set(), RecalculationDelivery.deliver

        async def noted(self: RecalculationDelivery, scope: Scope, key: UUID) -> object:
            asked.add(key)
            return await deliver_one(self, scope, key)

        monkeypatch.setattr(RecalculationDelivery, "deliver", noted)
        for _ in range(10):
            await deliver()
        assert len(asked) == len(waiting)


async def first_period_of(client: BillingClient, subscription_id: str) -> str:
    """The id of the first billing period of a subscription."""
    calculations = await calculations_of(client, subscription_id)
    return calculations[0].billing_period_id
