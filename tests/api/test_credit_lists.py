"""Reading a subscription's credits: pages, filters, and the summary in figures."""

from datetime import timedelta
from typing import Any

import pytest

from billing.v1 import credit_pb2
from billing.v1 import usage_credit_pb2 as pb
from tests.factories.billing_runs import MARCH
from tests.factories.client import BillingClient, moment, timestamp
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import void_credit
from tests.factories.credits import (
    create_payment,
    create_refund,
    credit_summary,
    credits_of,
    expire_credits,
    grant_credit,
)
from tests.factories.customers import STORAGE, Customer, new_customer
from tests.factories.refusals import refusal_of

UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March."""
    return await new_customer(client, clock)


async def grant(customer: Customer, amount: int = 500, **terms: Any) -> pb.UsageCredit:
    return await grant_credit(customer.client, customer.subscription_id, amount, **terms)


async def found(customer: Customer, **filters: Any) -> list[str]:
    """The ids of the credits that the filters let through."""
    rows = await credits_of(customer.client, customer.subscription_id, **filters)
    return [row.id for row in rows]


async def page(customer: Customer, **fields: Any) -> tuple[list[pb.UsageCredit], str]:
    request = credit_pb2.ListCreditsRequest(
        **{
            "tenant_id": customer.client.tenant_id,
            "subscription_id": customer.subscription_id,
            **fields,
        }
    )
    answer = await customer.client.credits.ListCredits(request)
    return list(answer.usage_credits), answer.next_page_token


class TestList:
    """Credits of one subscription, oldest first, by what became of them."""

    async def test_pages_hold_every_credit_once_in_order(self, customer: Customer) -> None:
        other = await new_customer(customer.client, customer.clock)
        await grant(other)
        granted = [await grant(customer, amount) for amount in range(1, 6)]
        seen, token = [], ""
        for size in (2, 2, 1):
            rows, token = await page(customer, page_size=2, page_token=token)
            assert len(rows) == size
            seen += rows
        assert token == ""
        assert seen == granted

    async def test_a_token_is_for_its_filters_alone(self, customer: Customer) -> None:
        for _ in range(2):
            await grant(customer)
        _, token = await page(customer, page_size=1)
        for fields in (
            {"status": pb.USAGE_CREDIT_STATUS_AVAILABLE},
            {"usage_meter_id": customer.meter_ids[STORAGE]},
            {"live_at": timestamp(START)},
        ):
            refusal = await refusal_of(page(customer, page_token=token, **fields))
            assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")

    async def test_malformed_filters_and_unknown_subscriptions_are_refused(
        self, customer: Customer
    ) -> None:
        refusal = await refusal_of(page(customer, subscription_id=UNKNOWN_SUBSCRIPTION))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
        fields = {"status": 99, "usage_meter_id": "m", "page_size": -1}
        refusal = await refusal_of(page(customer, **fields))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == [*fields]

    async def test_credits_are_filtered_by_status_and_meter(self, customer: Customer) -> None:
        storage = {"usage_meter_id": customer.meter_ids[STORAGE]}
        used = await grant(customer, await customer.use(50), priority=1, effective_at=MARCH)
        touched = await grant(customer, 70, priority=2, effective_at=MARCH)
        await customer.use(10)
        for_storage = await grant(customer, 30, **storage)
        over = await grant(customer, 40, **storage, expires_at=START + 3 * DAY)
        voided = await grant(customer, 60)
        await void_credit(customer.client, voided.id)
        await customer.bill()
        by_status = {
            pb.UsageCreditStatus.Name(status): await found(customer, status=status)
            for status in pb.UsageCreditStatus.values()
        }
        assert by_status == {
            "USAGE_CREDIT_STATUS_UNSPECIFIED": [
                each.id for each in (used, touched, for_storage, over, voided)
            ],
            "USAGE_CREDIT_STATUS_AVAILABLE": [for_storage.id],
            "USAGE_CREDIT_STATUS_PARTIALLY_USED": [touched.id],
            "USAGE_CREDIT_STATUS_FULLY_USED": [used.id],
            "USAGE_CREDIT_STATUS_EXPIRED": [over.id],
            "USAGE_CREDIT_STATUS_VOIDED": [voided.id],
        }
        assert await found(customer, **storage) == [for_storage.id, over.id]
        assert await found(customer, **storage, status=pb.USAGE_CREDIT_STATUS_EXPIRED) == [over.id]

    async def test_live_at_a_moment_are_credits_in_effect_neither_expired_nor_voided(
        self, customer: Customer
    ) -> None:
        always = await grant(customer, effective_at=START - 30 * DAY)
        for_a_day = await grant(customer, effective_at=START + DAY, expires_at=START + 2 * DAY)
        voided = await grant(customer, effective_at=START - 30 * DAY)
        customer.clock.set(START + 4 * DAY)
        voided_at = moment((await void_credit(customer.client, voided.id)).voided_at)
        await expire_credits(customer.client)
        for live_at, expected in (
            (START - 31 * DAY, []),
            (START - 30 * DAY, [always, voided]),
            (START + DAY - INSTANT, [always, voided]),
            (START + DAY, [always, for_a_day, voided]),
            (START + 2 * DAY - INSTANT, [always, for_a_day, voided]),
            (START + 2 * DAY, [always, voided]),
            (voided_at - INSTANT, [always, voided]),
            (voided_at, [always]),
        ):
            assert await found(customer, live_at=live_at) == [each.id for each in expected]


class TestSummary:
    """What can be spent, what is held, and what expires next."""

    async def test_without_credits_all_is_zero(self, customer: Customer) -> None:
        summary = await credit_summary(customer.client, customer.subscription_id)
        assert summary == pb.CreditSummary(
            subscription_id=customer.subscription_id, currency="USD", as_of=summary.as_of
        )
        assert moment(summary.as_of) == customer.clock.now

    async def test_every_credit_is_in_its_figures(self, customer: Customer) -> None:
        soon = START + 5 * DAY
        await grant(customer, 1, expires_at=soon)
        await grant(
            customer, 20, expires_at=soon, credit_type=pb.USAGE_CREDIT_TYPE_GRANTED_REFERRAL
        )
        await grant(customer, 300, expires_at=START + 6 * DAY)
        await grant(customer, 4000, effective_at=START + DAY)
        voided = await grant(customer, 50_000, expires_at=START + 2 * DAY)
        await void_credit(customer.client, voided.id)
        paid = await create_payment(customer.client, customer.subscription_id, 700_000)
        await create_refund(customer.client, paid.id, 100_000)
        summary = await credit_summary(customer.client, customer.subscription_id)
        assert summary == pb.CreditSummary(
            subscription_id=customer.subscription_id,
            currency="USD",
            available_amount=604_321,
            upcoming_amount=4000,
            held_amount=100_000,
            credit_balance_amount=704_321,
            available_count=5,
            next_expires_at=timestamp(soon),
            next_expiring_amount=21,
            available_by_type=[
                pb.CreditTypeAmount(credit_type=pb.USAGE_CREDIT_TYPE_GRANTED_PROMO, amount=4301),
                pb.CreditTypeAmount(credit_type=pb.USAGE_CREDIT_TYPE_GRANTED_REFERRAL, amount=20),
                pb.CreditTypeAmount(
                    credit_type=pb.USAGE_CREDIT_TYPE_PAYMENT_TOP_UP, amount=600_000
                ),
            ],
            as_of=summary.as_of,
        )
        owed = await customer.owed()
        assert owed.available_credit == summary.available_amount
        assert owed.credit_balance == summary.credit_balance_amount

    async def test_what_expired_is_on_the_books_until_it_is_expired_there(
        self, customer: Customer
    ) -> None:
        await grant(customer, 300, expires_at=START + DAY)
        await grant(customer, 40, expires_at=START + 2 * DAY)
        customer.clock.set(START + DAY)
        before = await credit_summary(customer.client, customer.subscription_id)
        assert (before.available_amount, before.credit_balance_amount) == (40, 340)
        assert (before.available_count, before.next_expiring_amount) == (1, 40)
        assert moment(before.next_expires_at) == START + 2 * DAY
        await expire_credits(customer.client)
        after = await credit_summary(customer.client, customer.subscription_id)
        assert (after.available_amount, after.credit_balance_amount) == (40, 40)

    async def test_what_only_a_billed_period_could_have_used_is_not_available(
        self, customer: Customer
    ) -> None:
        await grant(customer, 300, billing_period_id=customer.period_id)
        await grant(customer, 40)
        before = await credit_summary(customer.client, customer.subscription_id)
        assert (before.available_amount, before.credit_balance_amount) == (340, 340)
        await customer.bill()
        after = await credit_summary(customer.client, customer.subscription_id)
        assert (after.available_amount, after.credit_balance_amount) == (40, 340)
        owed = await customer.owed()
        assert (owed.available_credit, owed.credit_balance) == (40, 340)

    async def test_an_unknown_subscription_is_not_found(self, client: BillingClient) -> None:
        refusal = await refusal_of(credit_summary(client, UNKNOWN_SUBSCRIPTION))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
