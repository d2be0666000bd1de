"""Aggregated usage by meter and billing period."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import usage_pb2
from tests.factories.billing_runs import APRIL, FAILED, FEBRUARY, MARCH, MAY
from tests.factories.client import BillingClient, moment, timestamp
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment
from tests.factories.refusals import refusal_of

OPEN = usage_pb2.SUBSCRIPTION_USAGE_METER_STATUS_OPEN
BILLED = usage_pb2.SUBSCRIPTION_USAGE_METER_STATUS_BILLED
CLOSED = usage_pb2.SUBSCRIPTION_USAGE_METER_STATUS_CLOSED
MOMENT = timedelta(microseconds=1)
UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_AGGREGATE = "submeter_01h455vb4pex5vsknk084sn02q"
UNKNOWN_METER = "meter_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription for 1000 a month, on the first of February."""
    return await subscribe_credited(client, clock, invoicing, base_price_amount=1000)


async def page(
    metered: CreditedSubscription, **fields: Any
) -> tuple[list[usage_pb2.SubscriptionUsageMeter], str]:
    """A page of aggregates, and the token of the next; times as datetimes."""
    times = {name: value for name, value in fields.items() if isinstance(value, datetime)}
    request: dict[str, Any] = {
        "tenant_id": metered.client.tenant_id,
        "subscription_id": metered.id,
        **fields,
        **{name: timestamp(value) for name, value in times.items()},
    }
    answer = await metered.client.usage.ListSubscriptionUsageMeters(
        usage_pb2.ListSubscriptionUsageMetersRequest(**request)
    )
    return list(answer.subscription_usage_meters), answer.next_page_token


async def listed(
    metered: CreditedSubscription, **filters: Any
) -> list[usage_pb2.SubscriptionUsageMeter]:
    """All aggregates that the filters let through."""
    rows, token = await page(metered, **filters)
    assert token == ""
    return rows


async def get(
    client: BillingClient, subscription_usage_meter_id: str
) -> usage_pb2.SubscriptionUsageMeter:
    answer = await client.usage.GetSubscriptionUsageMeter(
        usage_pb2.GetSubscriptionUsageMeterRequest(
            tenant_id=client.tenant_id, subscription_usage_meter_id=subscription_usage_meter_id
        )
    )
    return answer.subscription_usage_meter  # type: ignore[no-any-return]


def amounts_of(row: usage_pb2.SubscriptionUsageMeter) -> tuple[int, int, int]:
    """Raw usage, credits applied, and net."""
    return row.total_raw_usage_amount, row.credits_applied_amount, row.net_billed_amount


async def through_three_periods(metered: CreditedSubscription) -> list[str]:
    """Use both meters in February, calls in March and tokens in April; return the periods' ids.

    February is invoiced, March billed without an invoice, April open.
    """
    period_ids = []
    for number, (start, meters) in enumerate(
        (
            (FEBRUARY, (metered.calls, metered.tokens)),
            (MARCH, (metered.calls,)),
            (APRIL, (metered.tokens,)),
        ),
        start=1,
    ):
        for meter_id in meters:
            await metered.use(10 * number, start + timedelta(days=3), meter_id)
        period_ids.append((await metered.get()).current_period_id)
        metered.invoicing.error_rate = 1.0 if start == MARCH else 0.0
        if start != APRIL:
            await metered.bill(f"run-{number}")
    metered.invoicing.error_rate = 0.0
    return period_ids


class TestAggregates:
    async def test_there_is_one_from_the_first_usage_on(
        self, metered: CreditedSubscription
    ) -> None:
        assert await listed(metered) == []
        await metered.use(30, february(10))
        await metered.use(40, february(11))

        [row] = await listed(metered)

        subscription = await metered.get()
        assert row.id.startswith("submeter_")
        assert (row.subscription_id, row.usage_meter_id) == (metered.id, metered.calls)
        assert (row.usage_meter_name, row.component_id) == ("calls", metered.component_ids[0])
        assert row.billing_period_id == subscription.current_period_id
        assert (moment(row.period_start), moment(row.period_end)) == (FEBRUARY, MARCH)
        assert (row.status, row.currency) == (OPEN, "USD")
        assert (row.total_quantity.value, row.event_count) == ("70", 2)
        assert amounts_of(row) == (70, 0, 70)
        assert february(11) <= moment(row.updated_at) < february(12)
        assert await get(metered.client, row.id) == row

    async def test_a_run_fills_in_what_credits_paid(self, metered: CreditedSubscription) -> None:
        """003: "records are created/updated correctly during the billing run with
        `total_raw_usage_amount`, `credits_applied_amount`, and `net_billed_amount`"."""
        await metered.grant(100)
        await metered.top_up(500)
        await metered.use(70, february(10), metered.calls)
        await metered.use(60, february(10), metered.tokens)
        assert [amounts_of(row) for row in await listed(metered)] == [(70, 0, 70), (60, 0, 60)]

        await metered.bill()

        rows = await listed(metered)
        assert [row.usage_meter_name for row in rows] == ["calls", "tokens"]
        assert [amounts_of(row) for row in rows] == [(70, 70, 0), (60, 60, 0)]
        assert [await get(metered.client, row.id) for row in rows] == rows

    async def test_what_no_credit_paid_is_net(self, metered: CreditedSubscription) -> None:
        await metered.grant(50, usage_meter_id=metered.tokens)
        await metered.use(70, february(10), metered.calls)
        await metered.use(60, february(10), metered.tokens)
        await metered.bill()
        assert [amounts_of(row) for row in await listed(metered)] == [(70, 0, 70), (60, 50, 10)]

    async def test_the_status_follows_the_period(self, metered: CreditedSubscription) -> None:
        """003: "Verify status updates on `SubscriptionUsageMeter` records", and that the close of a
        period "correctly finalizes" them."""
        await metered.use(70, february(10))
        assert [row.status for row in await listed(metered)] == [OPEN]
        metered.invoicing.error_rate = 1.0
        assert (await metered.bill("run-1")).status == FAILED
        assert [row.status for row in await listed(metered)] == [BILLED]
        metered.invoicing.error_rate = 0.0
        await metered.client.run_billing("run-2")
        assert [row.status for row in await listed(metered)] == [CLOSED]

    async def test_usage_that_credits_paid_in_full_is_closed_as_well(
        self, metered: CreditedSubscription
    ) -> None:
        """003: "periods that might not have a billing run (e.g., fully covered by credits...)"."""
        await metered.grant(5000, covers_charges=True)
        await metered.use(70, february(10))
        result = await metered.bill()
        assert result.total_amount == 0
        [row] = await listed(metered)
        assert (row.status, amounts_of(row)) == (CLOSED, (70, 70, 0))

    async def test_a_payment_of_the_period_is_no_credit(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(70, february(10))
        period_id = (await metered.get()).current_period_id
        payment = await create_payment(metered.client, metered.id, 70, billing_period_id=period_id)
        assert payment.settled_amount == 70
        [row] = await listed(metered)
        assert amounts_of(row) == (70, 0, 70)

    async def test_late_usage_is_in_the_period_that_counts_it(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(70, february(10))
        await metered.bill()
        await metered.use(5, february(10))
        rows = await listed(metered)
        assert [(moment(row.period_start), amounts_of(row)[0]) for row in rows] == [
            (FEBRUARY, 70),
            (MARCH, 5),
        ]


class TestFilters:
    async def test_by_meter_period_status_and_time(self, metered: CreditedSubscription) -> None:
        first, second, third = await through_three_periods(metered)
        everything = await listed(metered)
        keys = [(row.billing_period_id, row.usage_meter_id) for row in everything]
        assert keys == [
            (first, metered.calls),
            (first, metered.tokens),
            (second, metered.calls),
            (third, metered.tokens),
        ]
        assert [row.status for row in everything] == [CLOSED, CLOSED, BILLED, OPEN]
        by_filters: list[tuple[dict[str, Any], list[int]]] = [
            ({"usage_meter_id": metered.calls}, [0, 2]),
            ({"usage_meter_id": metered.tokens}, [1, 3]),
            ({"billing_period_id": first}, [0, 1]),
            ({"billing_period_id": third, "usage_meter_id": metered.calls}, []),
            ({"status": OPEN}, [3]),
            ({"status": BILLED}, [2]),
            ({"status": CLOSED}, [0, 1]),
            ({"status": CLOSED, "usage_meter_id": metered.tokens}, [1]),
            # Of periods that end after date_from and start before date_to.
            ({"date_from": MARCH}, [2, 3]),
            ({"date_from": MARCH - MOMENT}, [0, 1, 2, 3]),
            ({"date_to": MARCH}, [0, 1]),
            ({"date_to": MARCH + MOMENT}, [0, 1, 2]),
            ({"date_from": MARCH, "date_to": APRIL}, [2]),
            ({"date_from": february(10), "date_to": february(11)}, [0, 1]),
            ({"date_from": MAY}, []),
            ({"date_to": FEBRUARY}, []),
        ]
        for filters, numbers in by_filters:
            expected = [everything[number] for number in numbers]
            assert await listed(metered, **filters) == expected, filters

    async def test_pages_go_through_all_in_order(self, metered: CreditedSubscription) -> None:
        await through_three_periods(metered)
        everything = await listed(metered)
        rows, token = await page(metered, page_size=3)
        assert (rows, bool(token)) == (everything[:3], True)
        assert await page(metered, page_size=3, page_token=token) == (everything[3:], "")
        rows, token = await page(metered, page_size=1, usage_meter_id=metered.calls)
        assert rows == everything[:1]
        rest, last = await page(
            metered, page_size=1, usage_meter_id=metered.calls, page_token=token
        )
        assert (rest, last) == (everything[2:3], "")
        refusal = await refusal_of(page(metered, page_size=1, page_token=token))
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")

    async def test_other_subscriptions_are_not_in_it(self, metered: CreditedSubscription) -> None:
        created = await metered.client.subscribe(metered.plan_id, started_at=FEBRUARY)
        other = replace(metered, id=created.id)
        await metered.use(70, february(10))
        await other.use(5, february(10))
        for each, amount in ((metered, 70), (other, 5)):
            [row] = await listed(each)
            assert (row.subscription_id, row.total_raw_usage_amount) == (each.id, amount)


class TestRefusals:
    async def test_unknown_things_are_not_found_or_not_listed(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(70, february(10))
        refusal = await refusal_of(get(metered.client, UNKNOWN_AGGREGATE))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_USAGE_METER_NOT_FOUND")
        refusal = await refusal_of(page(metered, subscription_id=UNKNOWN_SUBSCRIPTION))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
        assert await listed(metered, usage_meter_id=UNKNOWN_METER) == []
        assert await listed(metered, billing_period_id=UNKNOWN_PERIOD) == []

    @pytest.mark.parametrize("date_to", [MARCH, MARCH - MOMENT])
    async def test_a_range_must_end_after_it_begins(
        self, metered: CreditedSubscription, date_to: datetime
    ) -> None:
        refusal = await refusal_of(page(metered, date_from=MARCH, date_to=date_to))
        assert (refusal.kind, refusal.fields) == (
            ("INVALID_ARGUMENT", "FIELD_INVALID"),
            ["date_to"],
        )

    async def test_malformed_requests_name_their_fields(
        self, metered: CreditedSubscription
    ) -> None:
        fields = {"usage_meter_id": "m", "billing_period_id": "p", "status": 9, "page_size": -1}
        refusal = await refusal_of(page(metered, subscription_id="s", **fields))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["subscription_id", *fields]
        refusal = await refusal_of(get(metered.client, "meter_1"))
        assert refusal.fields == ["subscription_usage_meter_id"]

    async def test_strangers_see_nothing(self, metered: CreditedSubscription) -> None:
        """003: "Test authentication/authorization"."""
        await metered.use(70, february(10))
        [row] = await listed(metered)
        blind = metered.client.with_capabilities("billing.usage:write")
        stranger = BillingClient(metered.client.channel, metered.client.key)
        for caller, code in ((blind, "PERMISSION_DENIED"), (stranger, "NOT_FOUND")):
            assert (await refusal_of(get(caller, row.id))).code == code
            refusal = await refusal_of(page(replace(metered, client=caller)))
            assert refusal.code == code
        test_mode = metered.client.in_test_mode()
        assert (await refusal_of(get(test_mode, row.id))).code == "NOT_FOUND"
