"""Who may write off what, how a request is repeated, and how write-offs are listed."""

import asyncio
from typing import Any

import pytest

from billing.v1 import write_off_pb2
from tests.factories.billing_runs import MARCH
from tests.factories.calculations import get_write_off, recover, write_off, write_offs_page
from tests.factories.client import new_tenant
from tests.factories.credited_subscription import CreditedSubscription, february
from tests.factories.ledger_moves import nothing_written
from tests.factories.refusals import Refusal, refusal_of

UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"
UNKNOWN_WRITE_OFF = "writeoff_01h455vb4pex5vsknk084sn02q"


@pytest.fixture
async def period_id(held: CreditedSubscription) -> str:
    """February, which owes 100."""
    await held.use(100, february(3))
    return (await held.bill()).billing_period_id


async def refused(held: CreditedSubscription, call: Any) -> Refusal:
    """How a call is refused; fails unless it leaves everything as it was."""
    async with nothing_written(held.client, held.id):
        return await refusal_of(call)


async def listed(held: CreditedSubscription, **filters: Any) -> list[write_off_pb2.WriteOff]:
    """All write-offs that the filters let through."""
    found, token = await write_offs_page(held.client, held.id, page_size=1000, **filters)
    assert token == ""
    return found


class TestRefusals:
    async def test_unknown_things(self, held: CreditedSubscription, period_id: str) -> None:
        refusal = await refused(held, write_off(held.client, UNKNOWN_SUBSCRIPTION, period_id))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
        refusal = await refused(held, write_off(held.client, held.id, UNKNOWN_PERIOD))
        assert refusal.kind == ("NOT_FOUND", "BILLING_PERIOD_NOT_FOUND")
        for call in (
            recover(held.client, UNKNOWN_WRITE_OFF),
            get_write_off(held.client, UNKNOWN_WRITE_OFF),
        ):
            refusal = await refused(held, call)
            assert refusal.kind == ("NOT_FOUND", "WRITE_OFF_NOT_FOUND")
        refusal = await refused(held, write_offs_page(held.client, UNKNOWN_SUBSCRIPTION))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")

    async def test_another_subscriptions_period(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        other = await held.client.subscribe(held.plan_id, started_at=february(1))
        refusal = await refused(held, write_off(held.client, other.id, period_id))
        assert refusal.kind == ("NOT_FOUND", "BILLING_PERIOD_NOT_FOUND")

    async def test_other_tenants_and_modes_see_nothing(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        made = await write_off(held.client, held.id, period_id, amount=10)
        for client in (held.client.for_tenant(new_tenant()), held.client.in_test_mode()):
            for call in (
                write_off(client, held.id, period_id),
                recover(client, made.id),
                get_write_off(client, made.id),
                write_offs_page(client, held.id),
            ):
                assert (await refused(held, call)).code == "NOT_FOUND"

    async def test_each_call_needs_its_capability(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        reader = held.client.with_capabilities("billing.write_off:read")
        writer = held.client.with_capabilities("billing.write_off:write")
        payer = held.client.with_capabilities("billing.payment:write", "billing.payment:read")
        made = await write_off(writer, held.id, period_id, amount=10)
        for call in (
            write_off(reader, held.id, period_id),
            write_off(payer, held.id, period_id),
            recover(reader, made.id),
            recover(payer, made.id),
            get_write_off(writer, made.id),
            get_write_off(payer, made.id),
            write_offs_page(writer, held.id),
        ):
            refusal = await refused(held, call)
            assert refusal.kind == ("PERMISSION_DENIED", "CAPABILITY_MISSING")
        assert await get_write_off(reader, made.id) == made
        assert (await recover(writer, made.id)).recovered_amount == 10

    async def test_malformed_requests(self, held: CreditedSubscription, period_id: str) -> None:
        fields = {
            "subscription_id": "sub_1",
            "billing_period_id": "",
            "amount": -1,
            "currency": "usd",
            "reason": "",
            "written_off_by_user_id": "x" * 129,
            "request_id": "",
        }
        refusal = await refused(held, write_off(held.client, held.id, period_id, **fields))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == [*fields]
        made = await write_off(held.client, held.id, period_id, amount=10)
        fields = {"write_off_id": "writeoff_1", "amount": -1, "request_id": ""}
        refusal = await refused(held, recover(held.client, made.id, **fields))
        assert refusal.fields == [*fields]


class TestRepeats:
    async def test_the_same_request_gives_up_once(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        first = await write_off(held.client, held.id, period_id, amount=10, request_id="once")
        await recover(held.client, first.id)
        again = await write_off(held.client, held.id, period_id, amount=10, request_id="once")
        assert again == first
        assert len(await listed(held)) == 1

    async def test_the_same_request_recovers_once(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        made = await write_off(held.client, held.id, period_id)
        first = await recover(held.client, made.id, amount=10, request_id="once")
        assert await recover(held.client, made.id, amount=10, request_id="once") == first
        assert (await get_write_off(held.client, made.id)).recovered_amount == 10

    async def test_other_content_needs_another_request_id(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        made = await write_off(held.client, held.id, period_id, amount=10, request_id="once")
        await recover(held.client, made.id, amount=1, request_id="once")
        for call in (
            write_off(held.client, held.id, period_id, amount=11, request_id="once"),
            recover(held.client, made.id, amount=2, request_id="once"),
        ):
            refusal = await refused(held, call)
            assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")

    async def test_five_at_once_are_one(self, held: CreditedSubscription, period_id: str) -> None:
        answers = await asyncio.gather(
            *[
                write_off(held.client, held.id, period_id, amount=10, request_id="once")
                for _ in range(5)
            ]
        )
        assert len({each.id for each in answers}) == 1
        assert (await held.client.balance(held.id)).outstanding_amount == 90
        answers = await asyncio.gather(
            *[recover(held.client, answers[0].id, amount=2, request_id="twice") for _ in range(5)]
        )
        assert [each.recovered_amount for each in answers] == [2] * 5
        assert (await held.client.balance(held.id)).outstanding_amount == 92


class TestLists:
    async def test_oldest_first_by_period_and_in_pages(
        self, held: CreditedSubscription, period_id: str
    ) -> None:
        await held.use(50, MARCH)
        march_id = (await held.bill("run-2")).billing_period_id
        made = [
            await write_off(held.client, held.id, of, amount=5)
            for of in (period_id, march_id, period_id)
        ]
        assert await listed(held) == made
        assert await listed(held, billing_period_id=period_id) == [made[0], made[2]]
        assert await listed(held, billing_period_id=UNKNOWN_PERIOD) == []
        first, token = await write_offs_page(held.client, held.id, page_size=2)
        rest, last = await write_offs_page(held.client, held.id, page_size=2, page_token=token)
        assert (first + rest, last) == (made, "")
        refusal = await refusal_of(
            write_offs_page(held.client, held.id, billing_period_id=march_id, page_token=token)
        )
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
        other = await held.client.subscribe(held.plan_id)
        assert await write_offs_page(held.client, other.id) == ([], "")
