"""Adjusting credits: the record, its entries and accounts, and deficits that the period owes."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import grpc.aio
import pytest

from billing.v1 import usage_credit_pb2 as pb
from tests.factories.billing_runs import MARCH
from tests.factories.client import BillingClient, error_info, moment
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import (
    DECREASE,
    INCREASE,
    Adjusted,
    adjust_credit,
    adjustments_of,
    adjustments_page,
    void_credit,
)
from tests.factories.credits import (
    create_refund,
    credit,
    expire_credits,
)
from tests.factories.customers import Customer, Owed, new_customer
from tests.factories.ledger_moves import (
    Move,
    account_balances,
    ledger_transaction,
    moves,
    nothing_written,
    sources_of,
)
from tests.factories.refusals import Refusal, refusal_of

UNKNOWN_CREDIT = "credit_01h455vb4pex5vsknk084sn02q"
ALLOWED_TYPES = [
    pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_CLAWBACK_ERROR,
    pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_CLAWBACK_TERMS_VIOLATION,
    pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_ADMIN_REDUCTION,
    pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_GRANT_CORRECTION,
]
DAY = timedelta(days=1)


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March."""
    return await new_customer(client, clock)


async def given(customer: Customer) -> pb.UsageCredit:
    """A granted credit."""
    return await customer.grant()


async def paid(customer: Customer) -> pb.UsageCredit:
    """The credit of a top-up."""
    return await credit(customer.client, (await customer.pay()).usage_credit_id)


async def adjust(
    customer: Customer, usage_credit: pb.UsageCredit, change: int, **fields: Any
) -> Adjusted:
    return await adjust_credit(customer.client, usage_credit.id, change, **fields)


async def refused(customer: Customer, usage_credit_id: str, change: int, **f: Any) -> Refusal:
    """How an adjustment is refused; fails unless it leaves everything as it was."""
    async with nothing_written(customer.client, customer.subscription_id):
        return await refusal_of(adjust_credit(customer.client, usage_credit_id, change, **f))


TAKERS = pytest.mark.parametrize(
    ("make", "source", "taker"),
    [(given, "promotional_expense", "promotional_expense"), (paid, "cash", "breakage")],
    ids=["given", "paid"],
)


class TestDecrease:
    """Value that is taken back goes to who gave it, or is earned."""

    @TAKERS
    async def test_it_is_one_record_and_one_entry_of_one_transaction(
        self, customer: Customer, make: Any, source: str, taker: str
    ) -> None:
        usage_credit = await make(customer)
        adjustment, after = await adjust(
            customer, usage_credit, -300, notes="seen by Bo", metadata={"ticket": "7"}
        )
        _, entry = await customer.entries()
        assert moves([entry]) == [Move("credit_balance_adjusted", -300, "credit", taker)]
        assert entry.debit_account_id == usage_credit.id.replace("credit_", "account_")
        assert sources_of(entry) == {
            "usage_credit": usage_credit.id,
            "credit_balance_adjustment": adjustment.id,
        }
        assert entry.posted_at == entry.entry_timestamp == adjustment.adjustment_initiated_at
        assert not entry.billing_period_id
        assert adjustment == pb.CreditBalanceAdjustment(
            id=adjustment.id,
            usage_credit_id=usage_credit.id,
            subscription_id=customer.subscription_id,
            adjustment_type=pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_ADMIN_REDUCTION,
            direction=DECREASE,
            amount_adjusted=300,
            currency="USD",
            reason="the wrong amount",
            adjusted_by_user_id="ada",
            notes="seen by Bo",
            metadata={"ticket": "7"},
            adjustment_initiated_at=adjustment.adjustment_initiated_at,
            ledger_transaction_id=entry.ledger_transaction_id,
        )
        assert adjustment.id.startswith("creditadj_")
        assert START < moment(adjustment.adjustment_initiated_at) <= customer.clock.now
        assert await adjustments_of(customer.client, usage_credit.id) == [adjustment]
        transaction = await ledger_transaction(customer.client, entry.ledger_transaction_id)
        assert transaction.initiating_source_type == "credit_balance_adjustment"
        assert transaction.initiating_source_id == adjustment.id
        assert list(transaction.entries) == [entry]
        assert (after.issued_amount, after.remaining_amount) == (1000, 700)
        assert after.status == pb.USAGE_CREDIT_STATUS_PARTIALLY_USED
        assert await credit(customer.client, usage_credit.id) == after
        assert await customer.owed() == Owed(credit_balance=700, available_credit=700)
        expected = {"credit": -700, source: 1000}
        expected[taker] = expected.get(taker, 0) - 300
        assert await account_balances(customer.client) == expected

    @pytest.mark.parametrize("adjustment_type", ALLOWED_TYPES)
    @pytest.mark.parametrize("change", [-100, 100])
    async def test_administrators_have_four_reasons(
        self,
        customer: Customer,
        adjustment_type: pb.CreditBalanceAdjustmentType.ValueType,
        change: int,
    ) -> None:
        usage_credit = await customer.grant()
        adjustment, after = await adjust(
            customer, usage_credit, change, adjustment_type=adjustment_type
        )
        assert adjustment.adjustment_type == adjustment_type
        assert after.remaining_amount == 1000 + change

    async def test_all_that_is_left_can_be_taken(self, customer: Customer) -> None:
        usage_credit = await customer.grant()
        _, after = await adjust(customer, usage_credit, -1000, allow_deficit=True)
        assert (after.status, after.remaining_amount) == (pb.USAGE_CREDIT_STATUS_FULLY_USED, 0)
        assert len(await customer.entries()) == 2, "nothing is missing: there is no deficit"

    async def test_what_was_used_stays_used(self, customer: Customer) -> None:
        usage_credit = await customer.grant(effective_at=MARCH)
        cost = await customer.use(100)
        await customer.bill()
        refusal = await refused(customer, usage_credit.id, -(1000 - cost + 1))
        assert refusal.metadata["remaining"] == str(1000 - cost)
        _, after = await adjust(customer, usage_credit, -(1000 - cost))
        assert after.remaining_amount == 0

    async def test_more_than_is_left_is_refused_with_the_figures(self, customer: Customer) -> None:
        usage_credit = await customer.grant()
        await adjust(customer, usage_credit, -300)
        refusal = await refused(customer, usage_credit.id, -701)
        assert refusal.kind == ("FAILED_PRECONDITION", "CREDIT_BALANCE_INSUFFICIENT")
        assert refusal.metadata["usage_credit_id"] == usage_credit.id
        assert refusal.metadata["amount"] == "701"
        assert refusal.metadata["remaining"] == "700"

    async def test_what_a_pending_refund_holds_cannot_be_taken(self, customer: Customer) -> None:
        payment = await customer.pay()
        await create_refund(customer.client, payment.id, 400)
        refusal = await refused(customer, payment.usage_credit_id, -601)
        assert refusal.kind == ("FAILED_PRECONDITION", "CREDIT_BALANCE_INSUFFICIENT")
        assert refusal.metadata["remaining"] == "600"
        _, after = await adjust_credit(customer.client, payment.usage_credit_id, -600)
        assert (after.remaining_amount, after.held_amount) == (0, 400)
        assert after.status == pb.USAGE_CREDIT_STATUS_PARTIALLY_USED

    async def test_of_two_at_the_same_time_that_want_too_much_one_wins(
        self, customer: Customer
    ) -> None:
        usage_credit = await customer.grant()
        answers = await asyncio.gather(
            *(adjust(customer, usage_credit, -600) for _ in range(2)), return_exceptions=True
        )
        (failed,) = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert error_info(failed).reason == "CREDIT_BALANCE_INSUFFICIENT"
        assert error_info(failed).metadata["remaining"] == "400"
        assert [entry.amount for entry in await customer.entries()] == [1000, -600]


class TestIncrease:
    """More value is given, whoever paid for the credit before."""

    @TAKERS
    async def test_it_is_one_record_and_one_entry(
        self, customer: Customer, make: Any, source: str, taker: str
    ) -> None:
        usage_credit = await make(customer)
        adjustment, after = await adjust(customer, usage_credit, 250)
        _, entry = await customer.entries()
        assert moves([entry]) == [
            Move("credit_balance_adjusted", 250, "promotional_expense", "credit")
        ]
        assert sources_of(entry) == {
            "usage_credit": usage_credit.id,
            "credit_balance_adjustment": adjustment.id,
        }
        assert (adjustment.direction, adjustment.amount_adjusted) == (INCREASE, 250)
        assert adjustment.deficit_amount == 0
        assert (after.issued_amount, after.remaining_amount) == (1000, 1250)
        assert await customer.owed() == Owed(credit_balance=1250, available_credit=1250)
        expected = {"credit": -1250, source: 1000}
        expected["promotional_expense"] = expected.get("promotional_expense", 0) + 250
        assert await account_balances(customer.client) == expected

    async def test_it_brings_back_a_credit_of_which_nothing_was_left(
        self, customer: Customer
    ) -> None:
        usage_credit = await customer.grant()
        await adjust(customer, usage_credit, -1000)
        for change, status in (
            (999, pb.USAGE_CREDIT_STATUS_PARTIALLY_USED),
            (1, pb.USAGE_CREDIT_STATUS_AVAILABLE),
        ):
            _, after = await adjust(customer, usage_credit, change)
            assert after.status == status


class TestRefusals:
    """Nothing is written where an adjustment makes no sense."""

    @pytest.mark.parametrize("change", [-1, 1])
    async def test_a_dead_credit_cannot_be_adjusted(self, customer: Customer, change: int) -> None:
        voided = await customer.grant()
        await void_credit(customer.client, voided.id)
        over = await customer.grant(expires_at=START + DAY)
        customer.clock.set(START + DAY)
        attempt = partial(refused, customer, allow_deficit=True)
        refusal = await attempt(voided.id, change)
        assert refusal.kind == ("FAILED_PRECONDITION", "CREDIT_ALREADY_VOIDED")
        assert refusal.metadata["usage_credit_id"] == voided.id
        for _ in ("over by time alone", "expired in the books too"):
            refusal = await attempt(over.id, change)
            assert refusal.kind == ("FAILED_PRECONDITION", "CREDIT_ALREADY_EXPIRED")
            assert refusal.metadata["expires_at"] == (START + DAY).isoformat()
            await expire_credits(customer.client)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("adjustment_type", pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_UNSPECIFIED),
            ("adjustment_type", pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_CLAWBACK_REFUND),
            ("adjustment_type", pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_VOID),
            ("direction", pb.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_UNSPECIFIED),
            ("direction", 3),
            ("amount", 0),
            ("amount", -5),
            ("currency", "usd"),
            ("reason", ""),
            ("adjusted_by_user_id", ""),
            ("request_id", ""),
        ],
    )
    async def test_a_field_that_breaks_its_rule_is_named(
        self, customer: Customer, field: str, value: Any
    ) -> None:
        usage_credit = await customer.grant()
        refusal = await refused(customer, usage_credit.id, -1, **{field: value})
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == [field]

    async def test_another_currency_and_an_unknown_credit_are_refused(
        self, customer: Customer
    ) -> None:
        usage_credit = await customer.grant()
        refusal = await refused(customer, usage_credit.id, -1, currency="EUR")
        assert refusal.kind == ("INVALID_ARGUMENT", "CURRENCY_MISMATCH")
        assert (refusal.metadata["currency"], refusal.metadata["expected"]) == ("EUR", "USD")
        refusal = await refused(customer, UNKNOWN_CREDIT, -1)
        assert refusal.kind == ("NOT_FOUND", "CREDIT_NOT_FOUND")
        refusal = await refusal_of(adjustments_of(customer.client, UNKNOWN_CREDIT))
        assert refusal.kind == ("NOT_FOUND", "CREDIT_NOT_FOUND")


async def test_a_repeat_is_answered_as_the_first_call_was(customer: Customer) -> None:
    usage_credit = await customer.grant()
    terms = {"request_id": "adjust-1", "allow_deficit": True}
    first = await adjust(customer, usage_credit, -1200, **terms)
    await adjust(customer, usage_credit, 500)
    async with nothing_written(customer.client, customer.subscription_id):
        assert await adjust(customer, usage_credit, -1200, **terms) == first
    for change, other in ((-1201, terms), (1200, terms), (-1200, {**terms, "reason": "other"})):
        refusal = await refused(customer, usage_credit.id, change, **other)
        assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
        assert refusal.metadata["method"] == "AdjustCreditBalance"


async def test_adjustments_are_listed_in_pages_oldest_first(customer: Customer) -> None:
    usage_credit, other = await customer.grant(), await customer.grant()
    await adjust(customer, other, -9)
    made = [(await adjust(customer, usage_credit, -amount)).adjustment for amount in (1, 2, 3)]
    await void_credit(customer.client, usage_credit.id)
    first, token = await adjustments_page(customer.client, usage_credit.id, page_size=2)
    rest, end = await adjustments_page(
        customer.client, usage_credit.id, page_size=2, page_token=token
    )
    assert first == made[:2]
    assert (rest[0], end) == (made[2], "")
    assert rest[1].adjustment_type == pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_VOID
    assert rest[1].amount_adjusted == 994
    refusal = await refusal_of(adjustments_page(customer.client, other.id, page_token=token))
    assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")
