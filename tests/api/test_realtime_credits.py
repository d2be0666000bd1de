"""Pay as you go: credits pay usage in the call that brings it; what they leave is billed."""

from dataclasses import replace
from datetime import timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import ledger_pb2, subscription_pb2
from tests.factories.billing_runs import FEBRUARY, MARCH
from tests.factories.client import BillingClient, component, moment
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    APPLIED_TO_USAGE,
    EXPIRED,
    FULLY_USED,
    POSTED,
    REALTIME,
    REALTIME_MODE,
    RUN,
    USAGE_COST,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import applications, expire_credits, grant_credit
from tests.factories.entry_log import Calculation, calculations_of, entry_log

MOMENT = timedelta(microseconds=1)
AT_BILLING_MODE = subscription_pb2.CREDIT_APPLICATION_MODE_AT_BILLING
RECURRING = "Monthly subscription - Pro Plan"


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A pay-as-you-go subscription for 1000 a month, on the first of February."""
    return await subscribe_credited(
        client, clock, invoicing, base_price_amount=1000, is_realtime=True
    )


async def at_billing_beside(metered: CreditedSubscription) -> CreditedSubscription:
    """Another subscription to the same plan, whose usage waits for the run."""
    created = await metered.client.subscribe(metered.plan_id, started_at=FEBRUARY)
    return replace(metered, id=created.id)


class TestMode:
    async def test_a_subscription_says_when_its_usage_consumes_credits(
        self, metered: CreditedSubscription
    ) -> None:
        assert (await metered.get()).credit_application == REALTIME_MODE
        other = await at_billing_beside(metered)
        assert (await other.get()).credit_application == AT_BILLING_MODE

    async def test_usage_of_other_subscriptions_waits_for_the_run(
        self, metered: CreditedSubscription
    ) -> None:
        """001#7: creation of costs is "independent of, and typically precedes" applications."""
        other = await at_billing_beside(metered)
        credit = await other.grant(500)
        await other.use(120, february(10))
        [cost] = await other.entries(USAGE_COST)
        assert (cost.amount, cost.status, cost.calculation_run_id) == (-120, POSTED, "")
        assert await other.applications() == []
        assert (await other.now(credit)).remaining_amount == 500
        await other.audit()

    async def test_one_call_may_bring_usage_of_both(self, metered: CreditedSubscription) -> None:
        other = await at_billing_beside(metered)
        credits_ = await metered.grant(500), await other.grant(500)
        metered.reach(february(10))

        await metered.send(metered.event(120, february(10)), other.event(70, february(10)))

        assert await metered.payments_of(credit=credits_[0]) == [("credit", "calls", 120)]
        assert await other.applications() == []
        await metered.audit()
        await other.audit()


class TestAtOnce:
    async def test_cost_and_application_are_of_the_same_transaction(
        self, metered: CreditedSubscription
    ) -> None:
        """001#3: a "real-time credit application mechanism for PAYG models"; 001#15: linked "via a
        common `calculation_run_id`"."""
        credit = await metered.grant(500)

        await metered.use(120, february(10))

        [cost], [entry] = (
            await metered.entries(USAGE_COST),
            await metered.entries(APPLIED_TO_USAGE),
        )
        [application] = await metered.applications()
        assert (cost.amount, cost.status) == (-120, POSTED)
        assert (entry.amount, entry.status) == (120, POSTED)
        assert cost.ledger_transaction_id == entry.ledger_transaction_id
        assert application.ledger_transaction_id == entry.ledger_transaction_id
        assert application.kind == REALTIME
        assert (application.usage_credit_id, application.amount_applied) == (credit.id, 120)
        assert application.component_id == metered.component_ids[0]
        assert entry.source_credit_application_id == application.id
        assert entry.source_usage_credit_id == credit.id
        assert entry.calculation_run_id == application.calculation_run_id
        assert application.calculation_run_id.startswith("calcrun_")
        assert cost.calculation_run_id == ""
        answer = await metered.client.ledger.GetLedgerTransaction(
            ledger_pb2.GetLedgerTransactionRequest(
                tenant_id=metered.client.tenant_id,
                ledger_transaction_id=entry.ledger_transaction_id,
            )
        )
        assert answer.ledger_transaction.initiating_source_type == "usage_ingestion"
        await metered.audit()

    async def test_entries_are_pending_first_here_too(
        self, metered: CreditedSubscription, database_url: str
    ) -> None:
        await metered.grant(500)
        async with entry_log(database_url, metered.client.tenant_id) as log:
            await metered.use(120, february(10))
            seen = await log.read()
        assert [(each.entry_type, each.operation, each.status) for each in seen] == [
            ("usage_cost", "insert", "posted"),
            ("credit_applied_to_usage", "insert", "pending"),
            ("credit_applied_to_usage", "update", "posted"),
        ]
        assert len({each.transaction for each in seen}) == 1

    async def test_credit_and_balance_tell_it_at_once(self, metered: CreditedSubscription) -> None:
        credit = await metered.grant(100)
        await metered.use(120, february(10))
        used = await metered.now(credit)
        assert (used.status, used.remaining_amount) == (FULLY_USED, 0)
        balance = await metered.client.balance(metered.id)
        assert (balance.unbilled_amount, balance.available_credit_amount) == (20, 0)
        calls = (await metered.get()).current_period_usage_summary[0]
        assert (calls.total_raw_usage_amount, calls.credits_applied_amount) == (120, 100)
        assert calls.net_billed_amount == 20
        await metered.audit()

    async def test_every_call_has_a_calculation_run_of_its_own(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(500)
        await metered.use(10, february(10))
        await metered.send(
            metered.event(20, february(10)), metered.event(30, february(10), metered.tokens)
        )
        runs = [(a.calculation_run_id, a.amount_applied) for a in await metered.applications()]
        assert [amount for _, amount in runs] == [10, 20, 30]
        assert runs[0][0] != runs[1][0] == runs[2][0]

    async def test_every_subscription_and_period_of_a_call_has_one_too(
        self, metered: CreditedSubscription
    ) -> None:
        other = replace(
            metered,
            id=(
                await metered.client.subscribe(
                    metered.plan_id, started_at=FEBRUARY, credit_application=REALTIME_MODE
                )
            ).id,
        )
        await metered.grant(500)
        await other.grant(500)
        metered.reach(MARCH + timedelta(days=1))

        await metered.send(
            metered.event(10, february(10)), metered.event(20, MARCH), other.event(30, MARCH)
        )

        applied = [*await metered.applications(), *await other.applications()]
        assert [each.amount_applied for each in applied] == [10, 20, 30]
        assert len({each.calculation_run_id for each in applied}) == 3
        assert len({each.billing_period_id for each in applied}) == 3
        assert len({each.ledger_transaction_id for each in applied}) == 2
        await metered.audit()
        await other.audit()

    async def test_usage_without_credits_costs_what_it_costs(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.use(120, february(10))
        assert await metered.applications() == []
        assert len(await metered.entries()) == 1

    async def test_included_units_take_nothing_of_credits(
        self, client: BillingClient, clock: FakeClock
    ) -> None:
        meter_id = await client.create_meter()
        plan_id = await client.create_plan(
            components=[component(meter_id, unit_price="2", included="10")]
        )
        subscription = await client.subscribe(plan_id, credit_application=REALTIME_MODE)
        await grant_credit(
            client, subscription.id, 500, effective_at=moment(subscription.started_at)
        )
        for quantity in ("6", "6", "6"):
            await client.use(subscription.id, meter_id, quantity, clock.now)
        applied = [each.amount_applied for each in await applications(client, subscription.id)]
        assert applied == [4, 12]


class TestSameRules:
    async def test_several_credits_pay_in_their_order(self, metered: CreditedSubscription) -> None:
        paid, promo = await metered.top_up(1000), await metered.grant(40)
        of_tokens = await metered.grant(30, usage_meter_id=metered.tokens)
        first = await metered.grant(20, priority=-1)
        metered.reach(february(10))

        await metered.send(
            metered.event(50, february(10)), metered.event(60, february(10), metered.tokens)
        )

        named = {"paid": paid, "promo": promo, "of_tokens": of_tokens, "first": first}
        assert await metered.payments_of(**named) == [
            ("of_tokens", "tokens", 30),
            ("first", "calls", 20),
            ("promo", "calls", 30),
            ("promo", "tokens", 10),
            ("paid", "tokens", 20),
        ]
        assert {each.kind for each in await metered.applications()} == {REALTIME}
        await metered.audit()

    async def test_the_time_of_the_usage_decides_and_not_of_the_call(
        self, metered: CreditedSubscription
    ) -> None:
        early = await metered.grant(500, expires_at=february(10))
        late = await metered.grant(500, effective_at=february(20))
        metered.reach(february(25))

        await metered.send(
            metered.event(30, february(21)),
            metered.event(20, february(15)),
            metered.event(10, february(10) - MOMENT),
            metered.event(5, february(10)),
        )

        assert await metered.payments_of(early=early, late=late) == [
            ("early", "calls", 10),
            ("late", "calls", 30),
        ]
        spans = [
            (moment(each.usage_from), moment(each.usage_until))
            for each in await metered.applications()
        ]
        assert spans == [(FEBRUARY, february(10)), (february(20), MARCH)]
        await metered.audit()

    async def test_an_expired_credit_pays_nothing_even_before_the_books_say_so(
        self, metered: CreditedSubscription
    ) -> None:
        """001#12: "must check `expires_at` and not use expired credits"."""
        credit = await metered.grant(500, expires_at=february(10))
        await metered.use(30, february(10))
        assert await metered.applications() == []
        assert (await expire_credits(metered.client, metered.id)).expired_count == 1
        assert (await metered.now(credit)).status == EXPIRED
        await metered.use(30, february(9))
        assert await metered.applications() == []
        await metered.audit()

    async def test_late_usage_is_paid_with_the_first_part_of_the_open_period(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.bill("february")
        begun, within = (
            await metered.grant(30, effective_at=MARCH),
            await metered.grant(500, effective_at=MARCH + MOMENT),
        )
        await metered.use(50, february(10))
        assert await metered.payments_of(begun=begun, within=within) == [("begun", "calls", 30)]
        await metered.audit()

    async def test_a_credit_for_a_period_pays_that_period_alone(
        self, metered: CreditedSubscription
    ) -> None:
        period_id = (await metered.get()).current_period_id
        credit = await metered.grant(500, billing_period_id=period_id)
        metered.reach(MARCH)
        await metered.send(metered.event(10, MARCH), metered.event(20, february(28)))
        assert await metered.payments_of(credit=credit) == [("credit", "calls", 20)]


class TestTheRunAfter:
    async def test_leftovers_are_billed_and_nothing_is_paid_twice(
        self, metered: CreditedSubscription, database_url: str
    ) -> None:
        await metered.grant(100)
        await metered.use(120, february(10))
        await metered.use(30, february(11), metered.tokens)

        lines = await metered.bill_lines()

        assert lines == [
            (RECURRING, 1000),
            ("calls (120)", 120),
            ("tokens (30)", 30),
            ("Credits applied", -100),
        ]
        assert metered.invoices()[0].total_amount == 1050
        assert [each.kind for each in await metered.applications()] == [REALTIME]
        found = await calculations_of(database_url, metered.client.tenant_id, metered.id)
        run_id = found[0].calculation_run_id
        calls, tokens = metered.component_ids
        assert found == [
            Calculation(calls, run_id, 120, 100, 20, "active"),
            Calculation(tokens, run_id, 30, 0, 30, "active"),
        ]
        await metered.audit()

    async def test_a_credit_granted_since_pays_what_was_left(
        self, metered: CreditedSubscription
    ) -> None:
        first = await metered.grant(100)
        await metered.use(120, february(10))
        second = await metered.grant(50)
        paid = await metered.top_up(300)

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -420)
        assert await metered.payments_of(first=first, second=second, paid=paid) == [
            ("first", "calls", 100),
            ("second", "calls", 20),
            ("paid", "charges", 300),
        ]
        kinds = [each.kind for each in await metered.applications()]
        assert kinds == [REALTIME, RUN, RUN]
        await metered.audit()

    async def test_at_once_or_at_billing_the_invoice_is_the_same(
        self, metered: CreditedSubscription
    ) -> None:
        """Where usage arrives in its order, and no credit is granted for the past."""
        other = await at_billing_beside(metered)
        for each in (metered, other):
            await each.grant(60, expires_at=february(12))
            await each.grant(50, priority=-1)
            await each.grant(90, effective_at=february(8), expires_at=MARCH)
            await each.grant(30, usage_meter_id=each.tokens)
        for day, calls, tokens in ((5, 60, 10), (9, 40, 0), (15, 30, 60), (22, 25, 20)):
            for each in (metered, other):
                await each.use(calls, february(day), each.calls)
                await each.use(tokens, february(day), each.tokens)
        metered.reach(MARCH)
        await metered.client.run_billing()
        [at_once], [at_billing] = metered.invoices(), other.invoices()
        assert at_once.line_items == at_billing.line_items
        assert at_once.total_amount == at_billing.total_amount
        await metered.audit()
        await other.audit()
