"""What applying credits leaves behind: applications, entries with their lifecycle, calculations."""

from collections.abc import AsyncIterator

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.store.database import Database
from billing.v1 import ledger_pb2
from tests.factories.client import BillingClient, moment
from tests.factories.clock import FakeClock
from tests.factories.credit_estimates import leave_estimate
from tests.factories.credited_subscription import (
    APPLIED_TO_CHARGE,
    APPLIED_TO_USAGE,
    FULLY_USED,
    PARTIALLY_USED,
    POSTED,
    RUN,
    USAGE_COST,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import credit_summary, expire_credits
from tests.factories.entry_log import Calculation, calculations_of, entry_log
from tests.factories.transactions import database_with

PENDING = ledger_pb2.LEDGER_ENTRY_STATUS_PENDING
CREDIT = ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT
RECEIVABLE = ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription for 2000 a month, on the first of February."""
    return await subscribe_credited(client, clock, invoicing, base_price_amount=2000)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The service's database, past the service."""
    async with database_with(database_url, pool_size=1) as database:
        yield database


class TestLinks:
    async def test_an_application_and_its_entry_name_grant_run_and_each_other(
        self, metered: CreditedSubscription
    ) -> None:
        """001#10: "Records accurately reflect the amount applied and link to the source grant and
        application"."""
        promo = await metered.grant(120)
        paid = await metered.top_up(5000)
        await metered.use(100, february(10), metered.calls)
        await metered.use(50, february(10), metered.tokens)
        period_id = (await metered.get()).current_period_id

        result = await metered.bill()

        applied = await metered.applications()
        assert [(a.usage_credit_id, a.component_id, a.amount_applied) for a in applied] == [
            (promo.id, metered.component_ids[0], 100),
            (promo.id, metered.component_ids[1], 20),
            (paid.id, metered.component_ids[1], 30),
            (paid.id, "", 2000),
        ]
        entries = await metered.entries(APPLIED_TO_USAGE, APPLIED_TO_CHARGE)
        by_application = {entry.source_credit_application_id: entry for entry in entries}
        assert len(by_application) == len(entries) == len(applied)
        transaction_ids = set()
        for each in applied:
            entry = by_application[each.id]
            assert entry.source_usage_credit_id == each.usage_credit_id
            assert entry.amount == each.amount_applied
            assert entry.calculation_run_id == each.calculation_run_id == result.calculation_run_id
            assert entry.billing_period_id == each.billing_period_id == period_id
            assert entry.usage_meter_id == each.usage_meter_id
            assert entry.currency == each.currency == "USD"
            assert (entry.debit_account_kind, entry.credit_account_kind) == (CREDIT, RECEIVABLE)
            assert entry.status == POSTED
            assert not entry.source_usage_event_id
            assert each.kind == RUN
            assert each.reversed_amount == 0
            assert each.applied_at == entry.entry_timestamp
            transaction_ids |= {entry.ledger_transaction_id, each.ledger_transaction_id}
        [transaction_id] = transaction_ids
        await self.assert_of_run(metered, transaction_id, result.run_id)
        await metered.audit()

    async def assert_of_run(
        self, metered: CreditedSubscription, transaction_id: str, run_id: str
    ) -> None:
        """001#3: entries are "linked to the UsageTransaction associated with the billing run"."""
        answer = await metered.client.ledger.GetLedgerTransaction(
            ledger_pb2.GetLedgerTransactionRequest(
                tenant_id=metered.client.tenant_id, ledger_transaction_id=transaction_id
            )
        )
        told = answer.ledger_transaction
        assert (told.initiating_source_type, told.initiating_source_id) == ("billing_run", run_id)

    async def test_usage_costs_are_there_at_once_and_applications_only_from_the_run_on(
        self, metered: CreditedSubscription
    ) -> None:
        """001#3, #7: costs come with the usage, without a calculation_run_id; applications with
        the run, with its own."""
        await metered.grant(500)
        await metered.use(100, february(10))
        [cost] = await metered.entries(USAGE_COST)
        assert (cost.amount, cost.status, cost.calculation_run_id) == (-100, POSTED, "")
        assert await metered.applications() == []
        assert await metered.entries(APPLIED_TO_USAGE) == []

        result = await metered.bill()

        [applied] = await metered.entries(APPLIED_TO_USAGE)
        assert applied.calculation_run_id == result.calculation_run_id != ""
        assert await metered.entries(USAGE_COST) == [cost]

    async def test_each_period_has_a_calculation_run_of_its_own(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(500)
        await metered.use(100, february(10))
        first = await metered.bill("february")
        await metered.use(100, february(29))
        second = await metered.bill("march")
        run_ids = [application.calculation_run_id for application in await metered.applications()]
        assert run_ids == [first.calculation_run_id, second.calculation_run_id]
        assert len(set(run_ids)) == 2

    async def test_an_application_tells_when_the_usage_was_that_it_paid(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(40, expires_at=february(10))
        await metered.grant(500, effective_at=february(20))
        await metered.use(100, february(5))
        await metered.use(100, february(25))
        period = await metered.get()

        await metered.bill()

        spans = [
            (moment(a.usage_from), moment(a.usage_until), a.amount_applied)
            for a in await metered.applications()
        ]
        assert spans == [
            (moment(period.current_period_start), february(10), 40),
            (february(20), moment(period.current_period_end), 100),
        ]


class TestCalculations:
    async def test_they_hold_raw_usage_credits_and_net(
        self, metered: CreditedSubscription, database_url: str
    ) -> None:
        await metered.grant(120)
        await metered.use(100, february(10), metered.calls)
        await metered.use(50, february(10), metered.tokens)

        result = await metered.bill()

        run_id = result.calculation_run_id
        calls, tokens = metered.component_ids
        found = await calculations_of(database_url, metered.client.tenant_id, metered.id)
        assert found == [
            Calculation(calls, run_id, 100, 100, 0, "active"),
            Calculation(tokens, run_id, 50, 20, 30, "active"),
        ]

    async def test_payments_of_the_base_price_are_not_in_them(
        self, metered: CreditedSubscription, database_url: str
    ) -> None:
        await metered.top_up(1000)
        await metered.bill()
        found = await calculations_of(database_url, metered.client.tenant_id, metered.id)
        assert [(c.credits_applied_amount, c.net_billed_amount) for c in found] == [(0, 0), (0, 0)]


class TestLifecycle:
    async def test_entries_are_pending_first_and_posted_in_the_same_transaction(
        self, metered: CreditedSubscription, database_url: str
    ) -> None:
        """001#10: "initially created with `status: 'pending'`", "transitioned to
        `status: 'posted'`"."""
        await metered.grant(120)
        await metered.top_up(500)
        await metered.use(100, february(10), metered.calls)
        await metered.use(50, february(10), metered.tokens)

        async with entry_log(database_url, metered.client.tenant_id) as log:
            await metered.bill()
            seen = await log.read()

        entries = await metered.entries(APPLIED_TO_USAGE, APPLIED_TO_CHARGE)
        assert len(entries) == 4
        for entry in entries:
            assert [
                (each.operation, each.status, each.is_discarded)
                for each in seen
                if each.id == entry.id
            ] == [("insert", "pending", False), ("update", "posted", False)]
        assert {each.id for each in seen if each.operation == "update"} == {e.id for e in entries}
        assert len({each.transaction for each in seen}) == 1
        assert {entry.status for entry in await metered.entries()} == {POSTED}

    async def test_an_estimate_is_discarded_and_replaced_by_the_run(
        self, metered: CreditedSubscription, database: Database, database_url: str
    ) -> None:
        """001#10: "previous `pending` ledger items for that run are marked `discarded_at` and
        replaced by new `pending` items"; "Verify that `discarded_at` items are not posted"."""
        last, first = await metered.grant(300), await metered.grant(300, priority=-1)
        await metered.use(100, february(10))
        estimate_id = await leave_estimate(database, metered, last, 80)
        held = await metered.now(last)
        assert (held.remaining_amount, held.held_amount) == (220, 80)
        assert (await credit_summary(metered.client, metered.id)).held_amount == 80
        await metered.audit()

        async with entry_log(database_url, metered.client.tenant_id) as log:
            await metered.bill()
            seen = await log.read()

        released = await metered.now(last)
        assert (released.remaining_amount, released.held_amount) == (300, 0)
        used = await metered.now(first)
        assert (used.remaining_amount, used.status) == (200, PARTIALLY_USED)
        discarded, posted = await metered.entries(APPLIED_TO_USAGE)
        assert (discarded.id, discarded.status) == (estimate_id, PENDING)
        assert discarded.HasField("discarded_at")
        assert not discarded.HasField("posted_at")
        assert (posted.source_usage_credit_id, posted.amount, posted.status) == (
            first.id,
            100,
            POSTED,
        )
        of_credits = [e for e in seen if e.id in {discarded.id, posted.id}]
        assert [(e.id, e.operation, e.status, e.is_discarded) for e in of_credits] == [
            (discarded.id, "update", "pending", True),
            (posted.id, "insert", "pending", False),
            (posted.id, "update", "posted", False),
        ]
        assert len({e.transaction for e in of_credits}) == 1, "one transaction decides it all"
        [application] = await metered.applications()
        assert application.id == posted.source_credit_application_id
        await metered.audit()

    async def test_a_credit_that_an_estimate_holds_all_of_is_there_for_the_run(
        self, metered: CreditedSubscription, database: Database
    ) -> None:
        credit = await metered.grant(80)
        await metered.use(100, february(10))
        await leave_estimate(database, metered, credit, 80)

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -80)
        used = await metered.now(credit)
        assert (used.remaining_amount, used.held_amount, used.status) == (0, 0, FULLY_USED)
        await metered.audit()

    async def test_an_estimate_is_on_no_calculation_and_on_no_invoice(
        self, metered: CreditedSubscription, database: Database, database_url: str
    ) -> None:
        """001#15: summaries are of what is posted by the end of the run alone."""
        credit = await metered.grant(80, usage_meter_id=metered.calls)
        await metered.use(20, february(10))
        await leave_estimate(database, metered, credit, 80)
        before = (await metered.get()).current_period_usage_summary[0]
        assert (before.credits_applied_amount, before.net_billed_amount) == (0, 20)

        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -20)
        found = await calculations_of(database_url, metered.client.tenant_id, metered.id)
        assert [c.credits_applied_amount for c in found] == [20, 0]
        await metered.audit()

    async def test_the_expiry_of_credits_replaces_an_estimate_too(
        self, metered: CreditedSubscription, database: Database
    ) -> None:
        expiring = await metered.grant(50, expires_at=february(15))
        other = await metered.grant(300)
        await metered.use(100, february(10))
        estimate_id = await leave_estimate(database, metered, other, 80)
        metered.reach(february(16))

        await expire_credits(metered.client, metered.id)

        discarded = (await metered.entries(APPLIED_TO_USAGE))[0]
        assert discarded.id == estimate_id
        assert discarded.HasField("discarded_at")
        assert await metered.payments_of(expiring=expiring, other=other) == [
            ("expiring", "calls", 50),
            ("other", "calls", 50),
        ]
        assert (await metered.now(other)).held_amount == 0
        assert (await metered.bill_lines())[-1] == ("Credits applied", -100)
        await metered.audit()

    async def test_an_expired_credit_that_an_estimate_holds_all_of_expires(
        self, metered: CreditedSubscription, database: Database
    ) -> None:
        expiring = await metered.grant(80, expires_at=february(15))
        await metered.use(30, february(10))
        await leave_estimate(database, metered, expiring, 80)
        metered.reach(february(16))

        await expire_credits(metered.client, metered.id)
        lines = await metered.bill_lines()

        assert lines[-1] == ("Credits applied", -30)
        assert (await metered.now(expiring)).remaining_amount == 0
        balance = await metered.client.balance(metered.id)
        assert (balance.credit_balance_amount, balance.available_credit_amount) == (0, 0)
        await metered.audit()
