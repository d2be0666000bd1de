"""Negative invoices: nothing is due, and what is too much becomes a credit for later.

Nothing is priced below zero yet, so these tests take away the check that says so.
"""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from billing.config import Settings
from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import catalog_pb2, ledger_pb2, usage_credit_pb2
from tests.factories.billing_runs import FEBRUARY, MARCH, MAY, SUCCEEDED
from tests.factories.client import BillingClient, component, moment
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    AVAILABLE,
    CHARGE_BILLED,
    FULLY_USED,
    Credit,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment, credits_of, expire_credits
from tests.factories.own_service import allow_negative_prices, own_service, publish_past_the_service

SURPLUS = usage_credit_pb2.USAGE_CREDIT_TYPE_SURPLUS
SURPLUS_CREDITED = ledger_pb2.LEDGER_ENTRY_TYPE_SURPLUS_CREDITED
RECURRING = "Monthly subscription - Pro Plan"


@pytest.fixture(scope="module")
async def own(
    postgres_url: str,
    service_settings: Settings,
    session_clock: FakeClock,
    signing_key: DevelopmentKey,
) -> AsyncIterator[tuple[BillingClient, str]]:
    """A service whose database has nothing against negative prices, and its URL."""
    async with own_service(postgres_url, service_settings, session_clock, signing_key) as (
        client,
        url,
    ):
        await allow_negative_prices(url)
        yield client, url


async def discounted(
    own: tuple[BillingClient, str],
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    *,
    later_base_price_amount: int = 100,
) -> CreditedSubscription:
    """Subscribe at a base price of -500, which changes in March."""
    caller, url = own
    client = BillingClient(caller.channel, caller.key)
    metered = await subscribe_credited(client, clock, invoicing)
    await publish_past_the_service(url, client, metered.plan_id, base_price_amount=-500)
    subscription = await client.subscribe(metered.plan_id, started_at=FEBRUARY)
    clock.set(february(2))
    components = [
        component(meter_id, name=name, unit_price="1")
        for meter_id, name in zip(metered.meter_ids, ("calls", "tokens"), strict=True)
    ]
    await client.catalog.UpdatePlan(
        catalog_pb2.UpdatePlanRequest(
            tenant_id=client.tenant_id,
            plan_id=metered.plan_id,
            version=client.plan_version(
                base_price_amount=later_base_price_amount, components=components
            ),
        )
    )
    return replace(metered, id=subscription.id)


@pytest.fixture
async def metered(
    own: tuple[BillingClient, str], clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription at a base price of -500, and of 100 from March on."""
    return await discounted(own, clock, invoicing)


async def surplus_of(metered: CreditedSubscription) -> Credit:
    [surplus] = [
        each for each in await credits_of(metered.client, metered.id) if each.credit_type == SURPLUS
    ]
    return surplus


class TestNegativeTotal:
    async def test_nothing_is_due_and_the_surplus_is_a_credit(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(300, february(10))
        period = await metered.get()

        lines = await metered.bill_lines()

        assert lines == [
            (RECURRING, -500),
            ("calls (300)", 300),
            ("tokens (0)", 0),
            ("Carried to credit", 200),
        ]
        assert metered.invoices()[0].total_amount == 0
        surplus = await surplus_of(metered)
        assert (surplus.issued_amount, surplus.remaining_amount) == (200, 200)
        assert (surplus.status, surplus.currency) == (AVAILABLE, "USD")
        assert surplus.source_reference_id == period.current_period_id
        assert surplus.covers_charges
        assert not surplus.HasField("expires_at")
        assert not surplus.billing_period_id
        balance = await metered.client.balance(metered.id)
        assert (balance.outstanding_amount, balance.credit_balance_amount) == (0, 200)
        assert balance.available_credit_amount == balance.net_amount == 200
        await metered.audit()

    async def test_its_entry_moves_what_was_owed_too_little_into_the_credit(
        self, metered: CreditedSubscription
    ) -> None:
        result = await metered.bill()
        surplus = await surplus_of(metered)
        [entry] = await metered.entries(SURPLUS_CREDITED)
        assert (entry.amount, entry.source_usage_credit_id) == (500, surplus.id)
        assert entry.debit_account_kind == ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE
        assert entry.credit_account_kind == ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT
        assert entry.billing_period_id == result.billing_period_id
        assert entry.calculation_run_id == result.calculation_run_id
        [charged] = await metered.entries(CHARGE_BILLED)
        assert charged.amount == 500
        assert charged.credit_account_kind == ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE
        assert (result.status, result.total_amount) == (SUCCEEDED, 0)
        await metered.audit()

    async def test_it_pays_usage_and_charges_of_the_next_period(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(300, february(10))
        await metered.bill("february")
        surplus = await surplus_of(metered)
        metered.reach(MARCH + timedelta(days=3))
        await metered.use(70, metered.clock.now)

        lines = await metered.bill_lines("march")

        assert lines == [
            (RECURRING, 100),
            ("calls (70)", 70),
            ("tokens (0)", 0),
            ("Credits applied", -170),
        ]
        assert await metered.payments_of(surplus=surplus) == [
            ("surplus", "calls", 70),
            ("surplus", "charges", 100),
        ]
        assert (await metered.now(surplus)).remaining_amount == 30
        await metered.audit()

    async def test_when_the_run_comes_does_not_matter_to_the_next_period(
        self, metered: CreditedSubscription
    ) -> None:
        """The surplus is of the period's end: it pays all usage since, as if billed at once."""
        await metered.use(300, february(10))
        await metered.use(70, MARCH)
        metered.reach(MARCH + timedelta(days=10))
        await metered.bill("february")
        surplus = await surplus_of(metered)
        assert moment(surplus.effective_at) == MARCH

        await metered.bill("march")

        assert await metered.payments_of(surplus=surplus) == [
            ("surplus", "calls", 70),
            ("surplus", "charges", 100),
        ]
        await metered.audit()

    async def test_missed_periods_use_the_surplus_of_the_ones_before(
        self, metered: CreditedSubscription, clock: FakeClock
    ) -> None:
        await metered.use(300, february(10))
        await metered.use(70, MARCH)
        clock.set(MAY)

        run = await metered.client.run_billing()

        totals = [r.total_amount for r in run.results if r.subscription_id == metered.id]
        assert totals == [0, 0, 70]  # 200 of surplus; 170 in March, 30 of 100 in April
        surplus = await surplus_of(metered)
        assert surplus.status == FULLY_USED
        await metered.audit()


class TestWithOtherCredits:
    async def test_a_negative_total_takes_nothing_of_them(
        self, metered: CreditedSubscription
    ) -> None:
        promo, paid = await metered.grant(1000), await metered.top_up(1000)
        await metered.use(300, february(10))

        lines = await metered.bill_lines()

        assert lines[-1] == ("Carried to credit", 200)
        assert await metered.applications() == []
        for each in (promo, paid):
            assert (await metered.now(each)).remaining_amount == 1000
        await metered.audit()

    async def test_usage_beyond_the_discount_is_paid_up_to_the_total(
        self, metered: CreditedSubscription
    ) -> None:
        promo = await metered.grant(1000)
        await metered.use(620, february(10))

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -120)
        assert metered.invoices()[0].total_amount == 0
        assert (await metered.now(promo)).remaining_amount == 880
        await metered.audit()

    @pytest.mark.parametrize("is_expired_first", [False, True])
    async def test_what_an_expired_credit_paid_is_carried_whenever_it_was_expired(
        self, metered: CreditedSubscription, is_expired_first: bool
    ) -> None:
        """Segments that ended earlier are not capped, so that timing cannot change the result."""
        promo = await metered.grant(1000, expires_at=february(15))
        await metered.use(300, february(10))
        if is_expired_first:
            metered.reach(february(20))
            assert (await expire_credits(metered.client, metered.id)).expired_count == 1

        lines = await metered.bill_lines()

        assert lines == [
            (RECURRING, -500),
            ("calls (300)", 300),
            ("tokens (0)", 0),
            ("Credits applied", -300),
            ("Carried to credit", 500),
        ]
        assert await metered.payments_of(promo=promo) == [("promo", "calls", 300)]
        assert (await surplus_of(metered)).issued_amount == 500
        await metered.audit()

    async def test_what_was_paid_of_the_period_comes_back(
        self, metered: CreditedSubscription
    ) -> None:
        """A payment of usage so far, when the discount of the whole period is not known yet."""
        await metered.use(600, february(10))
        period_id = (await metered.get()).current_period_id
        payment = await create_payment(metered.client, metered.id, 600, billing_period_id=period_id)
        assert payment.settled_amount == 600

        lines = await metered.bill_lines()

        assert lines == [(RECURRING, -500), ("calls (600)", 600), ("tokens (0)", 0)]
        assert metered.invoices()[0].total_amount == 100
        assert (await surplus_of(metered)).issued_amount == 500
        balance = await metered.client.balance(metered.id)
        assert (balance.outstanding_amount, balance.net_amount) == (0, 500)
        assert (await metered.client.trial_balance()).difference_amount == 0


async def test_the_surplus_of_a_last_period_stays_on_the_books(
    own: tuple[BillingClient, str], clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    metered = await discounted(own, clock, invoicing)
    await metered.client.cancel(metered.id, immediately=True)
    surplus = await surplus_of(metered)
    assert surplus.remaining_amount == 500
    assert (await metered.client.balance(metered.id)).net_amount == 500
    await metered.audit()


async def test_each_negative_period_has_a_surplus_of_its_own(
    own: tuple[BillingClient, str], clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    metered = await discounted(own, clock, invoicing, later_base_price_amount=0)
    await publish_past_the_service(own[1], metered.client, metered.plan_id, base_price_amount=-10)
    await metered.bill("february")
    await metered.bill("march")
    amounts = [each.issued_amount for each in await credits_of(metered.client, metered.id)]
    assert amounts == [500, 10]
    await metered.audit()
