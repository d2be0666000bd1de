"""Corrections that cannot be: nothing is written. And repeats, races, pages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from billing.domain.money import MAX_AMOUNT_MINOR
from billing.v1 import usage_correction_pb2 as pb
from tests.factories.billing_runs import APRIL
from tests.factories.calculations import amend, corrections_of, usage_event_of, void_event
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.ledger_moves import nothing_written
from tests.factories.refusals import refusal_of
from tests.factories.usage import MeteredSubscription, metered_subscription

UNKNOWN_EVENT = "usage_01h455vb4pex5vsknk084sn02q"
CORRECT = "billing.usage:correct"
RACING = 8


@pytest.fixture
async def metered(client: BillingClient) -> MeteredSubscription:
    """A subscription whose plan costs 2 for each unit."""
    return await metered_subscription(client)


@pytest.fixture
async def event_id(metered: MeteredSubscription) -> str:
    """An event of ten units."""
    [result] = await metered.send(metered.event("10"))
    return result.usage_event_id


@asynccontextmanager
async def nothing_changed(metered: MeteredSubscription, event_id: str) -> AsyncIterator[None]:
    """Fail unless books, event and corrections are the same after the block."""
    client = metered.client
    event = await usage_event_of(client, event_id)
    corrections = await corrections_of(client, event_id)
    async with nothing_written(client, metered.subscription_id):
        yield
    assert await usage_event_of(client, event_id) == event
    assert await corrections_of(client, event_id) == corrections


class TestRefusals:
    async def test_an_event_that_there_is_not(self, client: BillingClient) -> None:
        for call in (
            amend(client, UNKNOWN_EVENT, "1"),
            void_event(client, UNKNOWN_EVENT),
            corrections_of(client, UNKNOWN_EVENT),
        ):
            assert (await refusal_of(call)).kind == ("NOT_FOUND", "USAGE_EVENT_NOT_FOUND")

    async def test_a_voided_event_is_voided_for_good(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        await void_event(metered.client, event_id)
        async with nothing_changed(metered, event_id):
            for call in (
                void_event(metered.client, event_id),
                amend(metered.client, event_id, "5"),
                amend(metered.client, event_id, "0"),
            ):
                refusal = await refusal_of(call)
                assert refusal.kind == ("FAILED_PRECONDITION", "USAGE_EVENT_ALREADY_VOIDED")
                assert refusal.metadata["usage_event_id"] == event_id

    @pytest.mark.parametrize("quantity", ["10", "10.000"])
    async def test_the_quantity_that_counts_already(
        self, metered: MeteredSubscription, event_id: str, quantity: str
    ) -> None:
        async with nothing_changed(metered, event_id):
            refusal = await refusal_of(amend(metered.client, event_id, quantity))
        assert refusal.kind == ("FAILED_PRECONDITION", "USAGE_EVENT_UNCHANGED")
        assert refusal.metadata["quantity"] == "10"

    async def test_the_quantity_of_an_earlier_correction(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        await amend(metered.client, event_id, "4")
        refusal = await refusal_of(amend(metered.client, event_id, "4"))
        assert refusal.reason == "USAGE_EVENT_UNCHANGED"
        assert (await amend(metered.client, event_id, "10")).cost_change_amount == 12

    @pytest.mark.parametrize(
        "quantity", ["", "-1", "-0", "+1", "NaN", "1e5", "1,000", "1" * 19, "0." + "1" * 13]
    )
    async def test_what_is_no_quantity(
        self, metered: MeteredSubscription, event_id: str, quantity: str
    ) -> None:
        async with nothing_changed(metered, event_id):
            refusal = await refusal_of(amend(metered.client, event_id, quantity))
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["quantity"])

    async def test_an_amendment_without_a_quantity(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        async with nothing_changed(metered, event_id):
            request = pb.AmendUsageEventRequest(
                tenant_id=metered.client.tenant_id,
                usage_event_id=event_id,
                reason="forgotten",
                request_id="amend-1",
            )
            refusal = await refusal_of(metered.client.usage.AmendUsageEvent(request))
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["quantity"])

    @pytest.mark.parametrize(
        "fields",
        [
            {"reason": ""},
            {"reason": "x" * 501},
            {"request_id": ""},
            {"corrected_by_user_id": "x" * 129},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    async def test_fields_that_break_the_contract(
        self, metered: MeteredSubscription, event_id: str, fields: dict[str, str]
    ) -> None:
        async with nothing_changed(metered, event_id):
            for call in (
                amend(metered.client, event_id, "1", **fields),
                void_event(metered.client, event_id, **fields),
            ):
                refusal = await refusal_of(call)
                assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", [*fields])

    async def test_what_is_no_event(self, client: BillingClient) -> None:
        for call in (amend(client, "usage_1", "1"), void_event(client, "period_1")):
            refusal = await refusal_of(call)
            assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["usage_event_id"])

    async def test_more_than_can_be_billed(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        async with nothing_changed(metered, event_id):
            refusal = await refusal_of(amend(metered.client, event_id, str(MAX_AMOUNT_MINOR)))
        assert refusal.kind == ("FAILED_PRECONDITION", "AMOUNT_OUT_OF_RANGE")

    async def test_more_than_can_be_billed_waits_no_more_than_it_counts(
        self, metered: MeteredSubscription, event_id: str, clock: FakeClock
    ) -> None:
        clock.set(APRIL.replace(day=6))
        await metered.client.run_billing()
        async with nothing_changed(metered, event_id):
            refusal = await refusal_of(amend(metered.client, event_id, str(MAX_AMOUNT_MINOR)))
        assert refusal.kind == ("FAILED_PRECONDITION", "AMOUNT_OUT_OF_RANGE")

    async def test_who_may_not(self, metered: MeteredSubscription, event_id: str) -> None:
        """Who may send usage may not correct it."""
        sender = metered.client.with_capabilities("billing.usage:ingest", "billing.usage:read")
        async with nothing_changed(metered, event_id):
            for call in (amend(sender, event_id, "1"), void_event(sender, event_id)):
                refusal = await refusal_of(call)
                assert refusal.code == "PERMISSION_DENIED"
                assert CORRECT in refusal.message
        corrector = metered.client.with_capabilities(CORRECT)
        assert (await amend(corrector, event_id, "1")).cost_change_amount == -18

    async def test_an_event_of_somebody_else(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        other = BillingClient(metered.client.channel, metered.client.key)
        async with nothing_changed(metered, event_id):
            for client in (other, metered.client.in_test_mode()):
                for call in (
                    amend(client, event_id, "1"),
                    void_event(client, event_id),
                    corrections_of(client, event_id),
                ):
                    assert (await refusal_of(call)).code == "NOT_FOUND"


class TestRepeats:
    async def test_a_repeat_is_answered_as_the_first_time(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        first = await amend(metered.client, event_id, "4", request_id="amend-1")
        voided = await void_event(metered.client, event_id, request_id="void-1")
        async with nothing_changed(metered, event_id):
            assert await amend(metered.client, event_id, "4", request_id="amend-1") == first
            assert await void_event(metered.client, event_id, request_id="void-1") == voided

    async def test_a_request_id_is_of_one_request(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        await amend(metered.client, event_id, "4", request_id="amend-1")
        async with nothing_changed(metered, event_id):
            refusal = await refusal_of(amend(metered.client, event_id, "5", request_id="amend-1"))
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["request_id"])

    async def test_what_was_refused_may_be_asked_again(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        await refusal_of(amend(metered.client, event_id, "10", request_id="amend-1"))
        await amend(metered.client, event_id, "9")
        again = await amend(metered.client, event_id, "10", request_id="amend-1")
        assert again.cost_change_amount == 2


class TestRaces:
    async def test_amendments_at_the_same_time_follow_each_other(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        quantities = [str(20 + number) for number in range(RACING)]
        await asyncio.gather(*(amend(metered.client, event_id, q) for q in quantities))

        corrections = await corrections_of(metered.client, event_id)
        assert {c.quantity_after.value for c in corrections} == {*quantities}
        steps = [c.quantity_after.value for c in corrections]
        assert [c.quantity_before.value for c in corrections] == ["10", *steps[:-1]]
        event = await usage_event_of(metered.client, event_id)
        assert event.corrected_quantity.value == steps[-1]
        balance = await metered.client.balance(metered.subscription_id)
        assert balance.unbilled_amount == event.corrected_cost_amount == 2 * int(steps[-1])

    async def test_an_event_is_voided_once(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        calls = [void_event(metered.client, event_id) for _ in range(RACING)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert len([a for a in answers if isinstance(a, pb.UsageEventCorrection)]) == 1
        assert len(await corrections_of(metered.client, event_id)) == 1
        assert (await metered.client.balance(metered.subscription_id)).unbilled_amount == 0

    async def test_the_same_request_at_the_same_time_is_one(
        self, metered: MeteredSubscription, event_id: str
    ) -> None:
        calls = [void_event(metered.client, event_id, request_id="void-1") for _ in range(RACING)]
        first, *others = await asyncio.gather(*calls)
        assert others == [first] * (RACING - 1)
        assert await corrections_of(metered.client, event_id) == [first]


async def test_corrections_are_listed_by_pages(metered: MeteredSubscription, event_id: str) -> None:
    [other] = await metered.send(metered.event("3"))
    for quantity in ("1", "2", "3"):
        await amend(metered.client, event_id, quantity)
    request = pb.ListUsageEventCorrectionsRequest(
        tenant_id=metered.client.tenant_id, usage_event_id=event_id, page_size=2
    )
    page = await metered.client.usage.ListUsageEventCorrections(request)
    assert [c.quantity_after.value for c in page.corrections] == ["1", "2"]
    request.page_token = page.next_page_token
    last = await metered.client.usage.ListUsageEventCorrections(request)
    assert [c.quantity_after.value for c in last.corrections] == ["3"]
    assert last.next_page_token == ""
    assert await corrections_of(metered.client, other.usage_event_id) == []
    request.usage_event_id = other.usage_event_id
    refusal = await refusal_of(metered.client.usage.ListUsageEventCorrections(request))
    assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["page_token"])
