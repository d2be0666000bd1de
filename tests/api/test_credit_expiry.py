"""ExpireCredits: what is left at a credit's expiry is gone, after it has paid what came before."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TypeAlias

import pytest

from billing.domain.errors import DatabaseUnavailable
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.services.credit_expiry import CreditExpiry
from billing.v1 import credit_pb2, ledger_pb2, subscription_pb2, usage_credit_pb2
from tests.factories.billing_runs import APRIL, FEBRUARY, MARCH
from tests.factories.client import BillingClient, moment
from tests.factories.clock import FakeClock
from tests.factories.credit_tampering import damaged_account, let_expire
from tests.factories.credited_subscription import (
    APPLIED_TO_USAGE,
    EXPIRED,
    FULLY_USED,
    GRANT_EXPIRED,
    PARTIALLY_USED,
    POSTED,
    RUN,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import credits_of, expire_credits
from tests.factories.refusals import refusal_of

MOMENT = timedelta(microseconds=1)
UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
BREAKAGE = ledger_pb2.LEDGER_ACCOUNT_KIND_BREAKAGE
PROMOTIONAL_EXPENSE = ledger_pb2.LEDGER_ACCOUNT_KIND_PROMOTIONAL_EXPENSE
CREDIT = ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT
GRANTED = [
    usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_PROMO,
    usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_GOODWILL,
    usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_SERVICE_CREDIT,
    usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_REFERRAL,
]


Counts: TypeAlias = tuple[int, int, int, dict[str, int]]
"""How many expired, were deferred, failed; and what expired by currency."""


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription without a base price, on the first of February."""
    return await subscribe_credited(client, clock, invoicing)


async def neighbour_of(metered: CreditedSubscription) -> CreditedSubscription:
    """Another subscription to the same plan."""
    created = await metered.client.subscribe(metered.plan_id, started_at=FEBRUARY)
    return replace(metered, id=created.id)


def counts_of(answer: credit_pb2.ExpireCreditsResponse) -> Counts:
    return (
        answer.expired_count,
        answer.deferred_count,
        answer.failed_count,
        {each.currency: each.amount for each in answer.expired_amounts},
    )


async def expire(metered: CreditedSubscription, *, of_all: bool = False) -> Counts:
    return counts_of(await expire_credits(metered.client, None if of_all else metered.id))


NOTHING: Counts = (0, 0, 0, {})


class TestRemainder:
    async def test_an_unused_credit_expires_with_all_of_it(
        self, metered: CreditedSubscription
    ) -> None:
        """001#12: "a `'credit_grant_expired'` `LedgerEntry` is created", "The ledger item's amount
        accurately reflects the value of the expired, unused portion"."""
        credit = await metered.grant(500, expires_at=february(15))
        metered.reach(february(15))

        assert await expire(metered) == (1, 0, 0, {"USD": 500})

        gone = await metered.now(credit)
        assert (gone.status, gone.remaining_amount, gone.issued_amount) == (EXPIRED, 0, 500)
        assert moment(gone.expired_at) >= february(15)
        [entry] = await metered.entries(GRANT_EXPIRED)
        assert (entry.amount, entry.currency, entry.status) == (-500, "USD", POSTED)
        assert entry.source_usage_credit_id == credit.id
        assert entry.description == "Credit expired with 500 unused"
        assert entry.posted_at == entry.entry_timestamp
        assert not entry.billing_period_id
        await metered.audit()

    async def test_the_balance_loses_what_expired(self, metered: CreditedSubscription) -> None:
        """001#12: "The subscription's ledger balance correctly reflects value lost"."""
        await metered.grant(500, expires_at=february(15))
        await metered.grant(70)
        metered.reach(february(15))
        before = await metered.client.balance(metered.id)
        assert (before.credit_balance_amount, before.available_credit_amount) == (570, 70)

        await expire(metered)

        after = await metered.client.balance(metered.id)
        assert (after.credit_balance_amount, after.available_credit_amount) == (70, 70)
        assert after.net_amount == before.net_amount - 500
        await metered.audit()

    async def test_it_is_an_operation_of_its_own(self, metered: CreditedSubscription) -> None:
        await metered.grant(500, expires_at=february(15))
        await metered.use(30, february(10))
        metered.reach(february(15))
        await expire(metered)
        [expired], [applied] = (
            await metered.entries(GRANT_EXPIRED),
            await metered.entries(APPLIED_TO_USAGE),
        )
        answer = await metered.client.ledger.GetLedgerTransaction(
            ledger_pb2.GetLedgerTransactionRequest(
                tenant_id=metered.client.tenant_id,
                ledger_transaction_id=expired.ledger_transaction_id,
            )
        )
        transaction = answer.ledger_transaction
        assert transaction.initiating_source_type == "credit_expiration"
        assert transaction.initiating_source_id.startswith("expiry_")
        assert {entry.id for entry in transaction.entries} == {expired.id, applied.id}

    async def test_what_was_used_before_does_not_expire(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(500, expires_at=MARCH + timedelta(days=5))
        await metered.use(120, february(10))
        await metered.bill()
        assert (await metered.now(credit)).status == PARTIALLY_USED
        metered.reach(MARCH + timedelta(days=5))

        assert await expire(metered) == (1, 0, 0, {"USD": 380})

        assert (await metered.now(credit)).status == EXPIRED
        await metered.audit()

    @pytest.mark.parametrize("credit_type", GRANTED)
    async def test_given_value_goes_back_to_the_expense(
        self,
        metered: CreditedSubscription,
        credit_type: usage_credit_pb2.UsageCreditType.ValueType,
    ) -> None:
        await metered.grant(500, expires_at=february(15), credit_type=credit_type)
        metered.reach(february(15))
        await expire(metered)
        [entry] = await metered.entries(GRANT_EXPIRED)
        assert (entry.debit_account_kind, entry.credit_account_kind) == (
            CREDIT,
            PROMOTIONAL_EXPENSE,
        )

    async def test_paid_value_is_earned(
        self, metered: CreditedSubscription, database_url: str
    ) -> None:
        paid = await metered.top_up(500)
        await let_expire(database_url, paid, february(15))
        metered.reach(february(15))
        assert await expire(metered) == (1, 0, 0, {"USD": 500})
        [entry] = await metered.entries(GRANT_EXPIRED)
        assert (entry.debit_account_kind, entry.credit_account_kind) == (CREDIT, BREAKAGE)
        await metered.audit()

    async def test_nothing_expires_before_its_time(self, metered: CreditedSubscription) -> None:
        credit = await metered.grant(500, expires_at=february(15))
        await metered.grant(500)
        metered.reach(february(15) - timedelta(seconds=1))
        assert await expire(metered) == await expire(metered, of_all=True) == NOTHING
        assert (await metered.now(credit)).remaining_amount == 500


class TestRepeats:
    async def test_a_repeat_changes_nothing(self, metered: CreditedSubscription) -> None:
        """001#12: "All processes for creating expiration ledger items are idempotent"."""
        await metered.grant(500, expires_at=february(15))
        await metered.use(30, february(10))
        metered.reach(february(15))
        await expire(metered)
        entries = await metered.entries()

        for of_all in (False, True):
            assert await expire(metered, of_all=of_all) == NOTHING
        await metered.bill()
        metered.reach(APRIL)
        assert await expire(metered) == NOTHING

        assert await metered.entries(GRANT_EXPIRED) == [
            each for each in entries if each.entry_type == GRANT_EXPIRED
        ]
        await metered.audit()

    async def test_expired_by_its_run_a_credit_does_not_expire_again(
        self, metered: CreditedSubscription
    ) -> None:
        """001#12: "evaluating them post-expiration (e.g., during a billing run) triggers the ledger
        entry"."""
        credit = await metered.grant(500, expires_at=february(15))
        await metered.use(30, february(10))
        await metered.bill()
        [entry] = await metered.entries(GRANT_EXPIRED)
        assert (entry.amount, entry.source_usage_credit_id) == (-470, credit.id)

        assert await expire(metered) == NOTHING

        assert await metered.entries(GRANT_EXPIRED) == [entry]
        await metered.audit()

    async def test_calls_at_the_same_time_expire_a_credit_once(
        self, metered: CreditedSubscription
    ) -> None:
        await metered.grant(500, expires_at=february(15))
        await metered.use(30, february(10))
        await metered.use(9, february(20))
        metered.reach(MARCH)

        run = asyncio.create_task(metered.client.run_billing())
        answers = await asyncio.gather(
            *[expire(metered, of_all=number % 2 == 0) for number in range(6)]
        )

        assert sum(answer[0] for answer in answers) <= 1, "or the run was the first"
        assert [result.total_amount for result in (await run).results] == [9]
        assert [entry.amount for entry in await metered.entries(GRANT_EXPIRED)] == [-470]
        assert [each.amount_applied for each in await metered.applications()] == [30]
        await metered.audit()


class TestWhose:
    async def test_one_subscription_or_all_of_the_tenant(
        self, metered: CreditedSubscription
    ) -> None:
        """001#12: "The optional scheduled job correctly identifies and processes expirations"."""
        others = [await neighbour_of(metered) for _ in range(3)]
        for number, each in enumerate([metered, *others], start=1):
            await each.grant(100 * number, expires_at=february(10 + number))
        metered.reach(february(13))

        assert await expire(metered) == (1, 0, 0, {"USD": 100})
        for each in others:
            assert await each.entries(GRANT_EXPIRED) == []
        assert await expire(metered, of_all=True) == (2, 0, 0, {"USD": 500})
        metered.reach(february(20))
        assert await expire(metered, of_all=True) == (1, 0, 0, {"USD": 400})
        for each in [metered, *others]:
            await each.audit()

    async def test_more_than_a_batch(
        self, metered: CreditedSubscription, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("billing.services.credit_expiry._BATCH_SIZE", 2)
        everybody = [metered, *[await neighbour_of(metered) for _ in range(4)]]
        for each in everybody:
            await each.grant(100, expires_at=february(15))
            await each.grant(10, expires_at=february(14))
            await each.use(30, february(12))
        metered.reach(february(16))
        assert await expire(metered, of_all=True) == (5, 0, 0, {"USD": 5 * 80})
        for each in everybody:
            await each.audit()

    async def test_currencies_are_told_apart(
        self, metered: CreditedSubscription, client: BillingClient
    ) -> None:
        plan_id = await client.create_plan(currency="EUR")
        european = replace(metered, id=(await client.subscribe(plan_id, started_at=FEBRUARY)).id)
        await european.grant(70, currency="EUR", expires_at=february(15))
        await metered.grant(500, expires_at=february(15))
        metered.reach(february(15))
        assert await expire(metered, of_all=True) == (2, 0, 0, {"USD": 500, "EUR": 70})

    async def test_other_tenants_and_test_data_are_left_alone(
        self, metered: CreditedSubscription, clock: FakeClock
    ) -> None:
        strangers = [
            await subscribe_credited(client, clock, metered.invoicing)
            for client in (
                metered.client.in_test_mode(),
                BillingClient(metered.client.channel, metered.client.key),
            )
        ]
        for each in (metered, *strangers):
            await each.grant(500, expires_at=february(15))
        metered.reach(february(15))
        assert await expire(metered, of_all=True) == (1, 0, 0, {"USD": 500})
        for each in strangers:
            assert (await credits_of(each.client, each.id))[0].remaining_amount == 500

    async def test_an_unknown_subscription_is_refused(self, metered: CreditedSubscription) -> None:
        refusal = await refusal_of(expire_credits(metered.client, UNKNOWN_SUBSCRIPTION))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
        refusal = await refusal_of(expire_credits(metered.client, "all"))
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["subscription_id"])

    async def test_it_needs_the_right_to_write_credits(self, metered: CreditedSubscription) -> None:
        reader = metered.client.with_capabilities("billing.credit:read")
        refusal = await refusal_of(expire_credits(reader, metered.id))
        assert refusal.code == "PERMISSION_DENIED"

    async def test_a_subscription_that_cannot_be_brought_up_to_date_stops_nobody(
        self,
        metered: CreditedSubscription,
        database_url: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        others = [await neighbour_of(metered) for _ in range(3)]
        bad = others[1]
        granted = [await each.grant(100, expires_at=february(15)) for each in (metered, *others)]
        metered.reach(february(15))

        async with damaged_account(database_url, granted[2]):
            assert await expire(metered, of_all=True) == (3, 0, 1, {"USD": 300})

        assert f"credits of {bad.id} cannot be expired" in caplog.text
        assert (await bad.now(granted[2])).remaining_amount == 100
        assert await bad.entries(GRANT_EXPIRED) == []
        assert await expire(metered, of_all=True) == (1, 0, 0, {"USD": 100})
        for each in (metered, *others):
            await each.audit()

    async def test_what_concerns_everybody_fails_the_call(
        self, metered: CreditedSubscription, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def unavailable(*_: object, **__: object) -> None:
            raise DatabaseUnavailable

        await metered.grant(500, expires_at=february(15))
        metered.reach(february(15))
        with monkeypatch.context() as broken:
            broken.setattr(CreditExpiry, "_settle", unavailable)
            refusal = await refusal_of(expire_credits(metered.client, metered.id))
        assert refusal.kind == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        assert await expire(metered) == (1, 0, 0, {"USD": 500})


class TestUsageBefore:
    async def test_usage_of_before_the_expiry_is_paid_first(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(500, expires_at=february(15))
        await metered.use(120, february(15) - MOMENT)
        await metered.use(70, february(15))
        metered.reach(february(20))

        assert await expire(metered) == (1, 0, 0, {"USD": 380})

        [applied] = await metered.applications()
        assert (applied.usage_credit_id, applied.amount_applied) == (credit.id, 120)
        assert (applied.kind, applied.component_id) == (RUN, metered.component_ids[0])
        assert (moment(applied.usage_from), moment(applied.usage_until)) == (
            FEBRUARY,
            february(15),
        )
        assert (await metered.client.balance(metered.id)).unbilled_amount == 70
        lines = await metered.bill_lines()
        assert lines == [("calls (190)", 190), ("tokens (0)", 0), ("Credits applied", -120)]
        await metered.audit()

    async def test_a_credit_that_usage_took_all_of_does_not_expire(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(100, expires_at=february(15))
        await metered.use(120, february(10))
        metered.reach(february(20))
        assert await expire(metered) == NOTHING
        assert (await metered.now(credit)).status == FULLY_USED
        assert await metered.entries(GRANT_EXPIRED) == []
        assert len(await metered.entries(APPLIED_TO_USAGE)) == 1
        await metered.audit()

    async def test_a_cancelled_subscription_has_nothing_left_to_pay(
        self, metered: CreditedSubscription
    ) -> None:
        credit = await metered.grant(500, expires_at=february(25))
        evergreen = await metered.grant(60)
        await metered.use(120, february(10))
        cancelled = await metered.client.cancel(metered.id, immediately=True)
        assert cancelled.subscription.status == subscription_pb2.SUBSCRIPTION_STATUS_CANCELLED
        assert (await metered.now(credit)).remaining_amount == 380
        metered.reach(february(25))

        assert await expire(metered) == (1, 0, 0, {"USD": 380})

        assert (await metered.now(evergreen)).remaining_amount == 60
        await metered.audit()
