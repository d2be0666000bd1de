"""In which order a billing run consumes credits, and which parts of a period each of them pays."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import credit_pb2, usage_credit_pb2
from tests.factories.billing_runs import APRIL, FEBRUARY, MARCH
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    EXPIRED,
    FULLY_USED,
    Credit,
    CreditedSubscription,
    february,
    subscribe_credited,
)

MOMENT = timedelta(microseconds=1)
GOODWILL = usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_GOODWILL


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription without a base price, on the first of February."""
    return await subscribe_credited(client, clock, invoicing)


Terms = Callable[[CreditedSubscription], Awaitable[Mapping[str, Any]]]


async def nothing_special(_: CreditedSubscription) -> Mapping[str, Any]:
    return {}


async def of_the_period(metered: CreditedSubscription) -> Mapping[str, Any]:
    return {"billing_period_id": (await metered.get()).current_period_id}


async def of_the_component(metered: CreditedSubscription) -> Mapping[str, Any]:
    return {"component_id": metered.component_ids[0]}


async def of_the_meter(metered: CreditedSubscription) -> Mapping[str, Any]:
    return {"usage_meter_id": metered.calls}


def with_terms(**terms: Any) -> Terms:
    async def fixed(_: CreditedSubscription) -> Mapping[str, Any]:
        return terms

    return fixed


class TestOrder:
    """003: "Credit application order (e.g., FIFO, earliest expiry)"; 001#10: "prioritization"."""

    @pytest.mark.parametrize(
        ("first", "then"),
        [
            (of_the_period, nothing_special),
            (of_the_period, with_terms(priority=-1000)),
            (of_the_period, of_the_component),
            (of_the_component, nothing_special),
            (of_the_component, with_terms(priority=-1000)),
            (of_the_meter, nothing_special),
            (of_the_meter, with_terms(expires_at=MARCH)),
            (with_terms(priority=-1), nothing_special),
            (with_terms(priority=0), with_terms(priority=1, expires_at=MARCH)),
            (with_terms(expires_at=MARCH), nothing_special),
            (with_terms(expires_at=MARCH), with_terms(expires_at=MARCH + MOMENT)),
            (with_terms(expires_at=APRIL), nothing_special),
        ],
        ids=[
            "period before evergreen",
            "period before priority",
            "period before component",
            "component before general",
            "component before priority",
            "meter before general",
            "meter before expiry",
            "lower priority",
            "priority before expiry",
            "earliest expiry",
            "earlier by a moment",
            "never last",
        ],
    )
    async def test_what_comes_first_pays(
        self, metered: CreditedSubscription, first: Terms, then: Terms
    ) -> None:
        # Granted last: alike, it would come last.
        late = await metered.grant(100, **await then(metered))
        early = await metered.grant(60, **await first(metered))
        await metered.use(100, february(10))

        await metered.bill()

        assert await metered.payments_of(early=early, late=late) == [
            ("early", "calls", 60),
            ("late", "calls", 40),
        ]
        await metered.audit()

    async def test_promotional_before_paid(self, metered: CreditedSubscription) -> None:
        paid = await metered.top_up(100)
        promo, goodwill = await metered.grant(30), await metered.grant(30, credit_type=GOODWILL)
        await metered.use(100, february(10))

        await metered.bill()

        assert await metered.payments_of(paid=paid, promo=promo, goodwill=goodwill) == [
            ("promo", "calls", 30),
            ("goodwill", "calls", 30),
            ("paid", "calls", 40),
        ]

    async def test_of_equals_the_oldest_first(self, metered: CreditedSubscription) -> None:
        """003: "oldest first": by when they were granted, not by when they take effect."""
        first = await metered.grant(30)
        metered.reach(february(5))
        second = await metered.grant(30, effective_at=FEBRUARY - timedelta(days=20))
        await metered.use(50, february(10))

        await metered.bill()

        assert await metered.payments_of(first=first, second=second) == [
            ("first", "calls", 30),
            ("second", "calls", 20),
        ]

    async def test_components_are_paid_in_the_order_of_the_plan(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(50)
        await metered.use(40, february(10), metered.tokens)
        await metered.use(40, february(20), metered.calls)

        await metered.bill()

        assert await metered.payments_of(credit=credit) == [
            ("credit", "calls", 40),
            ("credit", "tokens", 10),
        ]

    async def test_general_credits_pay_what_those_of_a_meter_leave(
        self, metered: CreditedSubscription
    ) -> None:
        """003: "Test general credits applying after meter-specific ones"."""
        general = await metered.grant(100, priority=-5, expires_at=MARCH)
        of_tokens = await metered.grant(30, usage_meter_id=metered.tokens)
        await metered.use(50, february(10), metered.calls)
        await metered.use(50, february(10), metered.tokens)

        await metered.bill()

        assert await metered.payments_of(general=general, of_tokens=of_tokens) == [
            ("of_tokens", "tokens", 30),
            ("general", "calls", 50),
            ("general", "tokens", 20),
        ]


class TestEventTime:
    async def test_a_credit_that_expired_pays_only_usage_of_before(
        self, metered: CreditedSubscription
    ) -> None:
        """003: "Test expired credits are ignored"."""
        credit = await metered.grant(500, expires_at=february(15))
        await metered.use(100, february(15) - MOMENT)
        await metered.use(70, february(15))

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -100)
        assert metered.invoices()[0].total_amount == 70
        gone = await metered.now(credit)
        assert (gone.status, gone.remaining_amount) == (EXPIRED, 0)
        await metered.audit()

    async def test_a_credit_that_expired_before_the_period_pays_nothing(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(500, expires_at=MARCH)
        await metered.bill("february")
        await metered.use(100, MARCH)
        assert await metered.bill_lines("march") == [("calls (100)", 100), ("tokens (0)", 0)]
        await metered.audit()

    async def test_a_credit_pays_usage_from_its_effect_on(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(500, effective_at=february(15))
        await metered.use(100, february(15) - MOMENT)
        await metered.use(70, february(15))

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -70)
        await metered.audit()

    async def test_a_credit_that_expires_exactly_at_the_end_pays_to_the_last_moment(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(500, expires_at=MARCH)
        await metered.use(100, MARCH - MOMENT)

        assert (await metered.bill_lines())[-1] == ("Credits applied", -100)
        assert (await metered.now(credit)).status == EXPIRED
        await metered.audit()

    async def test_a_credit_that_takes_effect_at_the_end_is_for_the_next_period(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(500, effective_at=MARCH)
        await metered.use(100, MARCH - MOMENT)
        assert await metered.bill_lines("february") == [("calls (100)", 100), ("tokens (0)", 0)]

        await metered.use(30, MARCH)

        assert (await metered.bill_lines("march"))[-1] == ("Credits applied", -30)
        assert (await metered.now(credit)).remaining_amount == 470
        await metered.audit()

    async def test_earlier_usage_is_paid_first_whoever_pays_it(
        self, metered: CreditedSubscription
    ) -> None:
        """By order the expiring credit goes first; but time comes before order."""
        evergreen = await metered.grant(50)
        expiring = await metered.grant(50, effective_at=february(10), expires_at=february(20))
        await metered.use(30, february(5))
        await metered.use(60, february(15))
        await metered.use(30, february(25))

        await metered.bill()

        assert await metered.payments_of(evergreen=evergreen, expiring=expiring) == [
            ("evergreen", "calls", 30),
            ("expiring", "calls", 50),
            ("evergreen", "calls", 10),
            ("evergreen", "calls", 10),
        ]
        await metered.audit()

    async def test_usage_that_arrives_out_of_order_is_paid_by_its_own_time(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(50, expires_at=february(10))
        await metered.use(40, february(12))
        await metered.use(40, february(5))

        await metered.bill()

        assert await metered.payments_of(credit=credit) == [("credit", "calls", 40)]
        assert metered.invoices()[0].total_amount == 40

    async def test_a_credit_granted_for_the_past_pays_usage_of_then(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(100, february(5))
        metered.reach(february(20))
        credit = await metered.grant(500)

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -100)
        assert (await metered.now(credit)).remaining_amount == 400
        await metered.audit()

    async def test_a_credit_granted_without_a_time_pays_from_now_on(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(100, february(5))
        metered.reach(february(20))
        credit = await metered.top_up(500)
        await metered.use(30, february(21))

        await metered.bill()

        assert await metered.payments_of(credit=credit) == [("credit", "calls", 30)]

    async def test_usage_ahead_of_the_clock_is_in_the_last_part_of_the_period(
        self, metered: CreditedSubscription, clock: FakeClock
    ) -> None:
        """An event of the next period, up to an hour ahead, counts in the last one begun."""
        expiring = await metered.grant(500, expires_at=MARCH - timedelta(hours=2))
        last = await metered.grant(500, expires_at=MARCH)
        clock.set(MARCH - timedelta(minutes=20))
        ahead = metered.event(40, MARCH + timedelta(minutes=10))
        assert (await metered.send(ahead)).accepted_count == 1

        await metered.bill()

        assert await metered.payments_of(expiring=expiring, last=last) == [("last", "calls", 40)]
        assert (await metered.now(last)).status == EXPIRED
        await metered.audit()

    async def test_a_voided_credit_still_divides_the_period_and_pays_nothing(
        self, metered: CreditedSubscription
    ) -> None:
        voided = await metered.grant(500, expires_at=february(10), priority=-1)
        general = await metered.grant(70)
        await metered.client.credits.VoidCredit(void_of(metered, voided))
        await metered.use(40, february(5))
        await metered.use(40, february(15))

        await metered.bill()

        assert await metered.payments_of(general=general) == [
            ("general", "calls", 40),
            ("general", "calls", 30),
        ]
        assert (await metered.now(general)).status == FULLY_USED
        await metered.audit()


def void_of(metered: CreditedSubscription, granted: Credit) -> credit_pb2.VoidCreditRequest:
    return credit_pb2.VoidCreditRequest(
        tenant_id=metered.client.tenant_id,
        usage_credit_id=granted.id,
        reason="by mistake",
        request_id="void-1",
    )
