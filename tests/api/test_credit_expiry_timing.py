"""When credits expire in the books: by whom, deferred or not, the result is the same."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import credit_pb2, payment_pb2, usage_credit_pb2
from tests.factories.billing_runs import MARCH
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    APPLIED_TO_USAGE,
    EXPIRED,
    FULLY_USED,
    GRANT_EXPIRED,
    Credit,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import confirm_payment, create_payment, create_refund, expire_credits
from tests.factories.refusals import refusal_of

MOMENT = timedelta(microseconds=1)
DECREASE = usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_DECREASE
INCREASE = usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_INCREASE
CORRECTION = usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_TYPE_GRANT_CORRECTION


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription for 1000 a month, on the first of February."""
    return await subscribe_credited(client, clock, invoicing, base_price_amount=1000)


async def expire(metered: CreditedSubscription) -> tuple[int, int, int]:
    """How many expired and were deferred, and what expired in dollars."""
    answer = await expire_credits(metered.client, metered.id)
    assert answer.failed_count == 0
    amounts = {each.currency: each.amount for each in answer.expired_amounts}
    return answer.expired_count, answer.deferred_count, amounts.get("USD", 0)


async def void(metered: CreditedSubscription, granted: Credit) -> None:
    await metered.client.credits.VoidCredit(
        credit_pb2.VoidCreditRequest(
            tenant_id=metered.client.tenant_id,
            usage_credit_id=granted.id,
            reason="by mistake",
            request_id=f"void-{granted.id}",
        )
    )


async def adjust(
    metered: CreditedSubscription,
    granted: Credit,
    direction: usage_credit_pb2.CreditBalanceAdjustmentDirection.ValueType = DECREASE,
) -> None:
    await metered.client.credits.AdjustCreditBalance(
        credit_pb2.AdjustCreditBalanceRequest(
            tenant_id=metered.client.tenant_id,
            usage_credit_id=granted.id,
            adjustment_type=CORRECTION,
            direction=direction,
            amount=5,
            currency="USD",
            reason="wrong",
            adjusted_by_user_id="ann",
            request_id=f"adjust-{granted.id}-{direction}",
        )
    )


class TestDeferral:
    """001#12: expired credits are not applied; but what is over may have been there in time."""

    async def test_a_credit_that_expires_with_an_unbilled_period_still_pays_it(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(500, expires_at=MARCH)
        await metered.use(120, MARCH - MOMENT)
        metered.reach(MARCH + timedelta(days=3))

        assert await expire(metered) == (0, 1, 0)

        assert (await metered.now(credit)).remaining_amount == 500
        assert await metered.entries(APPLIED_TO_USAGE, GRANT_EXPIRED) == []
        balance = await metered.client.balance(metered.id)
        assert (balance.credit_balance_amount, balance.available_credit_amount) == (500, 0)
        assert (await metered.bill_lines())[-1] == ("Credits applied", -120)
        gone = await metered.now(credit)
        assert (gone.status, gone.remaining_amount) == (EXPIRED, 0)
        assert [e.amount for e in await metered.entries(GRANT_EXPIRED)] == [-380]
        assert await expire(metered) == (0, 0, 0)
        await metered.audit()

    async def test_what_expires_after_an_unbilled_period_waits_for_its_run(
        self, metered: CreditedSubscription
    ) -> None:
        """First February, then the March usage of before the expiry, then the remainder."""
        credit = await metered.grant(500, expires_at=MARCH + timedelta(days=4))
        await metered.use(120, february(10))
        await metered.use(200, MARCH + timedelta(days=2))
        await metered.use(50, MARCH + timedelta(days=5))

        assert await expire(metered) == (0, 1, 0)
        await metered.bill("february")
        assert (await metered.now(credit)).remaining_amount == 380
        assert await expire(metered) == (1, 0, 180)

        assert await metered.payments_of(credit=credit) == [
            ("credit", "calls", 120),
            ("credit", "calls", 200),
        ]
        march = await metered.bill_lines("march")
        assert march[1:] == [("calls (250)", 250), ("tokens (0)", 0), ("Credits applied", -200)]
        await metered.audit()

    async def test_what_expired_within_an_unbilled_period_is_not_deferred(
        self, metered: CreditedSubscription
    ) -> None:
        inside = await metered.grant(500, expires_at=MARCH - MOMENT)
        at_the_end = await metered.grant(500, expires_at=MARCH)
        await metered.use(120, february(10))
        metered.reach(MARCH + timedelta(days=3))

        assert await expire(metered) == (1, 1, 380)

        assert (await metered.now(inside)).status == EXPIRED
        assert (await metered.now(at_the_end)).remaining_amount == 500
        await metered.bill()
        assert await expire(metered) == (0, 0, 0)
        await metered.audit()

    async def test_paused_a_subscription_keeps_its_credits_for_the_period_that_is_to_be_billed(
        self, metered: CreditedSubscription
    ) -> None:
        early = await metered.grant(100, expires_at=february(15))
        late = await metered.grant(500, expires_at=MARCH + timedelta(days=1))
        await metered.use(120, february(10))
        metered.reach(february(11))
        await metered.client.pause(metered.id)

        metered.reach(february(20))
        assert await expire(metered) == (0, 0, 0), "usage took all of it"
        assert (await metered.now(early)).status == FULLY_USED
        metered.reach(MARCH + timedelta(days=9))
        assert await expire(metered) == (0, 1, 0)

        await metered.client.resume(metered.id)
        assert (await metered.bill_lines())[-1] == ("Credits applied", -120)
        assert await expire(metered) == (1, 0, 480)
        assert (await metered.now(late)).status == EXPIRED
        await metered.audit()


Step = Callable[[], Awaitable[object]]


class TestSameResult:
    @pytest.mark.parametrize("days", [(), (12,), (20,), (12, 13, 20, 26), (35,)], ids=str)
    async def test_the_invoice_is_the_same_whenever_credits_are_expired(
        self, metered: CreditedSubscription, days: tuple[int, ...]
    ) -> None:
        """So ExpireCredits may run at any time, or never."""
        granted = {
            "first": await metered.grant(60, expires_at=february(12)),
            "tokens": await metered.grant(70, expires_at=MARCH, usage_meter_id=metered.tokens),
            "second": await metered.grant(90, effective_at=february(8), expires_at=february(20)),
            "evergreen": await metered.grant(50, priority=-1),
            "at_end": await metered.grant(60, expires_at=MARCH, covers_charges=True),
        }
        steps: list[tuple[int, Step]] = [
            (day, lambda: expire_credits(metered.client, metered.id)) for day in days
        ]
        for day, calls, tokens in ((5, 30, 10), (9, 40, 0), (15, 30, 60), (22, 25, 20)):
            steps.append((day, usage_of(metered, calls, day, metered.calls)))
            steps.append((day, usage_of(metered, tokens, day, metered.tokens)))
        for day, step in sorted(steps, key=lambda each: each[0]):
            metered.reach(february(day))
            await step()

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -230)
        assert metered.invoices()[0].total_amount == 1000 + 125 + 90 - 230
        paid: Counter[str] = Counter()
        for name, demand, amount in await metered.payments_of(**granted):
            paid[f"{name}: {demand}"] += amount
        assert paid == {
            "tokens: tokens": 70,
            "evergreen: calls": 50,
            "first: calls": 20,
            "second: calls": 30,
            "at_end: calls": 25,
            "at_end: tokens": 20,
            "at_end: charges": 15,
        }
        assert {name: (await metered.now(each)).status for name, each in granted.items()} == {
            name: EXPIRED if name in {"first", "second"} else FULLY_USED for name in granted
        }
        assert sum(entry.amount for entry in await metered.entries(GRANT_EXPIRED)) == -100
        await metered.audit()


def usage_of(metered: CreditedSubscription, units: int, day: int, meter_id: str) -> Step:
    return lambda: metered.use(units, february(day), meter_id)


class TestLateUsage:
    async def test_it_is_paid_until_the_credit_is_expired_in_the_books(
        self, metered: CreditedSubscription
    ) -> None:
        """Expiry is final: what arrives after it is not paid, even if it was consumed before."""
        credit = await metered.grant(500, expires_at=february(15))
        metered.reach(february(20))
        await metered.use(120, february(14))

        assert await expire(metered) == (1, 0, 380)
        await metered.use(70, february(14))

        lines = await metered.bill_lines()
        assert lines[1:] == [("calls (190)", 190), ("tokens (0)", 0), ("Credits applied", -120)]
        assert await metered.payments_of(credit=credit) == [("credit", "calls", 120)]
        await metered.audit()

    async def test_what_came_late_into_a_later_period_is_not_paid_by_what_expired_before_it(
        self, metered: CreditedSubscription
    ) -> None:
        at_end = await metered.grant(500, expires_at=MARCH)
        after = await metered.grant(500, expires_at=MARCH + timedelta(days=9))
        await metered.bill("february")
        assert (await metered.now(at_end)).status == EXPIRED
        await metered.use(70, february(14))
        metered.reach(MARCH + timedelta(days=10))

        assert await expire(metered) == (1, 0, 430)

        assert await metered.payments_of(after=after) == [("after", "calls", 70)]
        await metered.audit()


@dataclass(frozen=True)
class Others:
    """What else there is when a credit is overdue: another credit, and payments."""

    metered: CreditedSubscription
    credit: Credit
    paid: payment_pb2.Payment
    begun: payment_pb2.Payment

    async def void(self) -> None:
        await void(self.metered, self.credit)

    async def decrease(self) -> None:
        await adjust(self.metered, self.credit)

    async def increase(self) -> None:
        await adjust(self.metered, self.credit, INCREASE)

    async def refund(self) -> None:
        await create_refund(self.metered.client, self.paid.id, 10)

    async def settle(self) -> None:
        await confirm_payment(self.metered.client, self.begun.id)

    async def grant_for_the_past(self) -> None:
        await self.metered.grant(500, priority=-1000)

    async def expire(self) -> None:
        await expire_credits(self.metered.client, self.metered.id)

    async def expire_all(self) -> None:
        await expire_credits(self.metered.client)


async def others_of(metered: CreditedSubscription) -> Others:
    period_id = (await metered.get()).current_period_id
    client = metered.client
    return Others(
        metered,
        await metered.grant(300, effective_at=february(18)),
        await create_payment(client, metered.id, 40),
        await create_payment(client, metered.id, 90, billing_period_id=period_id, confirm=False),
    )


EVALUATIONS = [
    Others.void,
    Others.decrease,
    Others.increase,
    Others.refund,
    Others.settle,
    Others.grant_for_the_past,
    Others.expire,
    Others.expire_all,
]


class TestInPassing:
    """001#12: "If an expired credit is encountered, and no `'credit_grant_expired'` ledger item
    exists, one should be created"."""

    @pytest.mark.parametrize("evaluate", EVALUATIONS, ids=lambda each: each.__name__)
    async def test_whoever_judges_credits_expires_those_that_are_over(
        self, metered: CreditedSubscription, evaluate: Callable[[Others], Awaitable[None]]
    ) -> None:
        others = await others_of(metered)
        overdue = await metered.grant(500, expires_at=february(15), priority=-5)
        await metered.use(120, february(10))
        metered.reach(february(20))
        assert await metered.entries(GRANT_EXPIRED) == []

        await evaluate(others)

        gone = await metered.now(overdue)
        assert (gone.status, gone.remaining_amount) == (EXPIRED, 0)
        [entry] = await metered.entries(GRANT_EXPIRED)
        assert (entry.amount, entry.source_usage_credit_id) == (-380, overdue.id)
        [applied] = await metered.applications(usage_credit_id=overdue.id)
        assert applied.amount_applied == 120
        for repeat in (others.expire, others.expire_all):
            await repeat()
        assert await metered.entries(GRANT_EXPIRED) == [entry]
        await metered.audit()

    async def test_a_payment_of_the_period_leaves_to_credits_what_they_pay(
        self, metered: CreditedSubscription
    ) -> None:
        others = await others_of(metered)
        await metered.grant(500, expires_at=february(15), priority=-5)
        await metered.use(120, february(10))
        await metered.use(50, february(16))
        metered.reach(february(20))

        payment = await confirm_payment(metered.client, others.begun.id)

        assert payment.settled_amount == 50
        await metered.audit()

    async def test_a_grant_for_the_past_does_not_take_the_place_of_what_is_over(
        self, metered: CreditedSubscription
    ) -> None:
        overdue = await metered.grant(100, expires_at=february(15))
        await metered.use(120, february(10))
        metered.reach(february(20))

        granted = await metered.grant(500, priority=-1000)

        await metered.bill()
        assert await metered.payments_of(overdue=overdue, granted=granted) == [
            ("overdue", "calls", 100),
            ("granted", "calls", 20),
        ]
        await metered.audit()

    @pytest.mark.parametrize("is_booked", [False, True])
    @pytest.mark.parametrize("change", [void, adjust], ids=lambda each: each.__name__)
    async def test_an_expired_credit_cannot_be_changed_any_more(
        self,
        metered: CreditedSubscription,
        change: Callable[[CreditedSubscription, Credit], Awaitable[None]],
        is_booked: bool,
    ) -> None:
        """001#12: "Verifying that attempts to use them post-expiration fail"."""
        credit = await metered.grant(500, expires_at=february(15))
        metered.reach(february(15))
        if is_booked:
            await expire(metered)

        refusal = await refusal_of(change(metered, credit))

        assert refusal.kind == ("FAILED_PRECONDITION", "CREDIT_ALREADY_EXPIRED")
        assert refusal.metadata["usage_credit_id"] == credit.id
        assert await expire(metered) == ((0, 0, 0) if is_booked else (1, 0, 500))
        assert [entry.amount for entry in await metered.entries(GRANT_EXPIRED)] == [-500]
        await metered.audit()

    async def test_usage_of_after_the_expiry_is_never_paid(
        self, metered: CreditedSubscription
    ) -> None:
        """001#12: "Expired credit grants are not applied to usage"."""
        await metered.grant(500, expires_at=february(15))
        await metered.use(120, february(15))
        assert await metered.bill_lines() == [
            ("Monthly subscription - Pro Plan", 1000),
            ("calls (120)", 120),
            ("tokens (0)", 0),
        ]
        assert await metered.applications() == []
        assert [entry.amount for entry in await metered.entries(GRANT_EXPIRED)] == [-500]
        await metered.audit()
