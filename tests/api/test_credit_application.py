"""Billing runs with credits: who pays what, what the invoice says, what is left."""

from dataclasses import replace

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import credit_pb2, subscription_pb2, usage_credit_pb2
from tests.factories.billing_runs import FEBRUARY, MARCH, metered_plan
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    APPLIED_TO_CHARGE,
    APPLIED_TO_USAGE,
    AVAILABLE,
    FULLY_USED,
    PARTIALLY_USED,
    CreditedSubscription,
    february,
    lines_of,
    subscribe_credited,
)
from tests.factories.credits import grant_credit

GOODWILL = usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_GOODWILL


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription without a base price, on the first of February."""
    return await subscribe_credited(client, clock, invoicing)


@pytest.fixture
async def priced(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription for 2000 a month, on the first of February."""
    return await subscribe_credited(client, clock, invoicing, base_price_amount=2000)


RECURRING = "Monthly subscription - Pro Plan"


class TestCoverage:
    async def test_without_credits_all_usage_is_due(self, priced: CreditedSubscription) -> None:
        """003: "Test billing run with no credits: netAmountDue should equal rawUsageAmount"."""
        await priced.use(500, february(10))

        lines = await priced.bill_lines()

        assert lines == [(RECURRING, 2000), ("calls (500)", 500), ("tokens (0)", 0)]
        assert await priced.applications() == []
        assert await priced.entries(APPLIED_TO_USAGE, APPLIED_TO_CHARGE) == []
        await priced.audit()

    async def test_usage_that_is_fully_covered_leaves_nothing_due(
        self, metered: CreditedSubscription
    ) -> None:
        """003: "Test credits fully covering usage: netAmountDue should be 0"."""
        credit = await metered.grant(500)
        await metered.use(500, february(10))

        lines = await metered.bill_lines()

        assert lines == [("calls (500)", 500), ("tokens (0)", 0), ("Credits applied", -500)]
        [invoice] = metered.invoices()
        assert invoice.total_amount == 0
        assert (await metered.client.balance(metered.id)).net_amount == 0
        used = await metered.now(credit)
        assert (used.status, used.remaining_amount, used.issued_amount) == (FULLY_USED, 0, 500)
        await metered.audit()

    async def test_credits_that_cover_a_part_leave_the_rest_due(
        self, metered: CreditedSubscription
    ) -> None:
        """003: "Test credits partially covering usage"."""
        credit = await metered.grant(200)
        await metered.use(500, february(10))

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -200)
        assert metered.invoices()[0].total_amount == 300
        assert (await metered.now(credit)).status == FULLY_USED
        await metered.audit()

    async def test_what_usage_leaves_of_a_credit_stays_for_later_periods(
        self, metered: CreditedSubscription
    ) -> None:
        """003: "remainingAmount being correctly reduced and status updated"."""
        credit, untouched = await metered.grant(800), await metered.grant(50, priority=1)
        await metered.use(500, february(10))

        await metered.bill_lines("february")

        left = await metered.now(credit)
        assert (left.status, left.remaining_amount) == (PARTIALLY_USED, 300)
        unused = await metered.now(untouched)
        assert (unused.status, unused.remaining_amount) == (AVAILABLE, 50)
        await metered.use(320, MARCH)
        assert await metered.bill_lines("march") == [
            ("calls (320)", 320),
            ("tokens (0)", 0),
            ("Credits applied", -320),
        ]
        assert (await metered.now(credit)).status == FULLY_USED
        assert (await metered.now(untouched)).remaining_amount == 30
        await metered.audit()

    async def test_many_small_credits_pay_one_large_charge(
        self, metered: CreditedSubscription
    ) -> None:
        """003: "multiple small credits being consumed for one large usage charge"."""
        granted = [await metered.grant(20, notes=str(number)) for number in range(25)]
        await metered.use(490, february(10))

        lines = await metered.bill_lines()

        assert lines == [("calls (490)", 490), ("tokens (0)", 0), ("Credits applied", -490)]
        used = [await metered.now(each) for each in granted]
        assert [each.status for each in used] == [FULLY_USED] * 24 + [PARTIALLY_USED]
        assert used[-1].remaining_amount == 10
        applied = await metered.applications()
        assert [a.usage_credit_id for a in applied] == [each.id for each in granted]
        assert sum(a.amount_applied for a in applied) == 490
        await metered.audit()

    async def test_a_run_without_usage_takes_nothing_of_credits(
        self, priced: CreditedSubscription
    ) -> None:
        credit = await priced.grant(500)
        assert await priced.bill_lines() == [
            (RECURRING, 2000),
            ("calls (0)", 0),
            ("tokens (0)", 0),
        ]
        assert (await priced.now(credit)).status == AVAILABLE
        await priced.audit()

    async def test_included_units_cost_no_credit(
        self, client: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        plan = await metered_plan(client, base_price_amount=0, unit_price="2", included="1000")
        subscription = await client.subscribe(plan.plan_id, started_at=FEBRUARY)
        await grant_credit(client, subscription.id, 5000, effective_at=FEBRUARY)
        await client.use(subscription.id, plan.meter_id, "1100", february(10))

        [result] = (await client.run_billing()).results

        assert result.total_amount == 0
        balance = await client.balance(subscription.id)
        assert balance.available_credit_amount == 5000 - 200


class TestScopes:
    async def test_a_credit_for_a_meter_pays_that_meter_alone(
        self, metered: CreditedSubscription
    ) -> None:
        """003: "Test meter-specific credits applying only to their designated meter"."""
        credit = await metered.grant(500, usage_meter_id=metered.tokens)
        await metered.use(300, february(10), metered.calls)
        await metered.use(200, february(10), metered.tokens)

        lines = await metered.bill_lines()

        assert lines == [("calls (300)", 300), ("tokens (200)", 200), ("Credits applied", -200)]
        assert await metered.payments_of(credit=credit) == [("credit", "tokens", 200)]
        assert (await metered.now(credit)).remaining_amount == 300
        await metered.audit()

    async def test_a_credit_for_a_component_pays_that_component_alone(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(500, component_id=metered.component_ids[0])
        await metered.use(300, february(10), metered.calls)
        await metered.use(200, february(10), metered.tokens)

        await metered.bill_lines()

        assert await metered.payments_of(credit=credit) == [("credit", "calls", 300)]
        await metered.audit()

    async def test_a_credit_for_a_period_pays_that_period_alone(
        self, metered: CreditedSubscription
    ) -> None:
        period_id = (await metered.get()).current_period_id
        credit = await metered.grant(500, billing_period_id=period_id)
        await metered.use(300, february(10))
        assert (await metered.bill_lines("february"))[-1] == ("Credits applied", -300)

        await metered.use(100, MARCH)
        march = await metered.bill_lines("march")

        assert march == [("calls (100)", 100), ("tokens (0)", 0)]
        left = await metered.now(credit)
        assert (left.status, left.remaining_amount) == (PARTIALLY_USED, 200)
        balance = await metered.client.balance(metered.id)
        assert (balance.credit_balance_amount, balance.available_credit_amount) == (200, 0)
        await metered.audit()

    async def test_credits_of_another_subscription_stay_untouched(
        self,
        client: BillingClient,
        metered: CreditedSubscription,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        neighbour = await client.subscribe(metered.plan_id, started_at=FEBRUARY)
        other = replace(metered, id=neighbour.id)
        credit = await other.grant(500)
        await metered.use(300, february(10))

        lines = await metered.bill_lines()

        assert lines == [("calls (300)", 300), ("tokens (0)", 0)]
        assert (await other.now(credit)).remaining_amount == 500
        assert await other.applications() == []
        assert "one by one" not in caplog.text, "nothing had to be refused by the database"
        await metered.audit()
        await other.audit()


class TestCharges:
    async def test_a_promotion_never_pays_the_base_price(
        self, priced: CreditedSubscription
    ) -> None:
        promo, goodwill = await priced.grant(5000), await priced.grant(5000, credit_type=GOODWILL)
        await priced.use(300, february(10))

        lines = await priced.bill_lines()

        assert lines[-1] == ("Credits applied", -300)
        assert priced.invoices()[0].total_amount == 2000
        assert await priced.payments_of(promo=promo, goodwill=goodwill) == [("promo", "calls", 300)]
        await priced.audit()

    async def test_a_promotion_that_says_so_pays_the_base_price_too(
        self, priced: CreditedSubscription
    ) -> None:
        promo = await priced.grant(5000, covers_charges=True)
        await priced.use(300, february(10))

        lines = await priced.bill_lines()

        assert lines[-1] == ("Credits applied", -2300)
        assert priced.invoices()[0].total_amount == 0
        assert await priced.payments_of(promo=promo) == [
            ("promo", "calls", 300),
            ("promo", "charges", 2000),
        ]
        await priced.audit()

    async def test_paid_credit_pays_usage_and_the_base_price(
        self, priced: CreditedSubscription
    ) -> None:
        promo, paid = await priced.grant(100), await priced.top_up(1200)
        await priced.use(300, february(10))

        lines = await priced.bill_lines()

        assert lines[-1] == ("Credits applied", -1300)
        assert await priced.payments_of(promo=promo, paid=paid) == [
            ("promo", "calls", 100),
            ("paid", "calls", 200),
            ("paid", "charges", 1000),
        ]
        assert priced.invoices()[0].total_amount == 1000
        await priced.audit()

    async def test_the_payment_of_the_base_price_names_the_charge_it_pays(
        self, priced: CreditedSubscription
    ) -> None:
        await priced.top_up(2000)
        await priced.bill()
        [charged] = [e for e in await priced.entries() if e.source_charge_id]
        [entry] = await priced.entries(APPLIED_TO_CHARGE)
        assert entry.applied_to_ledger_entry_id == charged.id
        assert (entry.amount, entry.usage_meter_id) == (2000, "")
        assert priced.invoices()[0].total_amount == 0

    async def test_what_a_credit_could_not_give_back_is_a_charge_too(
        self, metered: CreditedSubscription
    ) -> None:
        """A deficit is on the invoice, and promotions leave it to those that pay charges."""
        taken = await metered.grant(50)
        promo, paid = await metered.grant(1000), await metered.top_up(60)
        await metered.use(100, february(10))
        await metered.client.credits.AdjustCreditBalance(
            credit_pb2.AdjustCreditBalanceRequest(
                tenant_id=metered.client.tenant_id,
                usage_credit_id=taken.id,
                adjustment_type=usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_TYPE_CLAWBACK_ERROR,
                direction=usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_DECREASE,
                amount=120,
                currency="USD",
                reason="never promised",
                adjusted_by_user_id="ann",
                allow_deficit=True,
                request_id="adjust-1",
            )
        )

        lines = await metered.bill_lines()

        assert lines == [
            ("calls (100)", 100),
            ("tokens (0)", 0),
            ("Credit taken back", 70),
            ("Credits applied", -160),
        ]
        assert await metered.payments_of(promo=promo, paid=paid) == [
            ("promo", "calls", 100),
            ("paid", "charges", 60),
        ]
        assert metered.invoices()[0].total_amount == 10
        await metered.audit()

    async def test_a_cancellation_at_once_bills_with_credits(
        self, priced: CreditedSubscription
    ) -> None:
        promo, paid = await priced.grant(200), await priced.top_up(2050)
        await priced.use(300, february(10))

        cancelled = await priced.client.cancel(priced.id, immediately=True)

        assert cancelled.subscription.status == subscription_pb2.SUBSCRIPTION_STATUS_CANCELLED
        assert lines_of(priced.invoices()[0])[-1] == ("Credits applied", -2250)
        assert await priced.payments_of(promo=promo, paid=paid) == [
            ("promo", "calls", 200),
            ("paid", "calls", 100),
            ("paid", "charges", 1950),
        ]
        await priced.audit()
