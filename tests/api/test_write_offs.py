"""Receivables that are given up, and owed again after all."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import ledger_pb2, refund_pb2, usage_credit_pb2, write_off_pb2
from tests.factories.billing_runs import MARCH
from tests.factories.calculations import get_write_off, recover, write_off
from tests.factories.client import moment
from tests.factories.credited_subscription import (
    SETTLEMENT,
    CreditedSubscription,
    february,
)
from tests.factories.credits import (
    confirm_payment,
    confirm_refund,
    create_payment,
    create_refund,
    credits_of,
)
from tests.factories.ledger_moves import (
    Move,
    account_balances,
    ledger_transaction,
    moves,
    nothing_written,
    sources_of,
)
from tests.factories.refusals import Refusal, outcome_of, refusal_of

REVERT_ALL = refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL
WRITTEN_OFF = ledger_pb2.LEDGER_ENTRY_TYPE_RECEIVABLE_WRITTEN_OFF
GIVEN_UP = ("receivable_written_off", "bad_debt", "receivable")
OWED_AGAIN = ("receivable_written_off", "receivable", "bad_debt")


class Debt:
    """A subscription that owes 100 for February, and 30 so far for March."""

    def __init__(self, held: CreditedSubscription, period_id: str) -> None:
        self.held = held
        self.client = held.client
        self.id = held.id
        self.period_id = period_id

    async def write_off(self, amount: int = 0, **fields: Any) -> write_off_pb2.WriteOff:
        """Give up an amount of February; all of it for 0."""
        return await write_off(self.client, self.id, self.period_id, amount=amount, **fields)

    async def refused(self, call: Any) -> Refusal:
        """How a call is refused; fails unless it leaves everything as it was."""
        async with nothing_written(self.client, self.id):
            return await refusal_of(call)

    async def owed(self) -> int:
        """What is owed for February."""
        balance = await self.client.balance(self.id)
        assert balance.unbilled_amount == 30
        assert balance.billed_not_invoiced_amount == 0
        assert balance.outstanding_amount == balance.invoiced_amount + 30
        return balance.invoiced_amount

    async def pay(self, amount: int) -> str:
        """Pay February; return the payment's id."""
        payment = await create_payment(
            self.client, self.id, amount, billing_period_id=self.period_id
        )
        return payment.id

    async def audit(self) -> None:
        """The balance is told the same from snapshots and from entries, and the books balance."""
        told = await self.client.balance(self.id)
        assert told == await self.client.balance(self.id, as_of=moment(told.as_of))
        assert told.net_amount == told.credit_balance_amount - told.outstanding_amount
        assert (await self.client.trial_balance()).difference_amount == 0


def facts_of(refusal: Refusal) -> dict[str, str]:
    """What a refusal says about the books."""
    return {name: value for name, value in refusal.metadata.items() if name != "x-request-id"}


@pytest.fixture
async def debt(held: CreditedSubscription) -> Debt:
    """The subscription."""
    await held.use(100, february(3))
    billed = await held.bill()
    await held.use(30, MARCH + timedelta(days=2))
    return Debt(held, billed.billing_period_id)


class TestWrittenOff:
    async def test_the_whole(self, debt: Debt) -> None:
        made = await debt.write_off(reason="insolvent", written_off_by_user_id="ada")

        assert (made.amount, made.recovered_amount, made.currency) == (100, 0, "USD")
        assert (made.reason, made.written_off_by_user_id) == ("insolvent", "ada")
        assert (made.subscription_id, made.billing_period_id) == (debt.id, debt.period_id)
        assert made.created_at == made.updated_at
        assert await get_write_off(debt.client, made.id) == made
        transaction = await ledger_transaction(debt.client, made.ledger_transaction_id)
        assert transaction.initiating_source_type == "write_off"
        assert transaction.initiating_source_id == made.id
        assert transaction.description == "Write-off: insolvent"
        assert moves(transaction.entries) == [Move(GIVEN_UP[0], 100, *GIVEN_UP[1:])]
        [entry] = transaction.entries
        assert sources_of(entry) == {"write_off": made.id}
        assert entry.billing_period_id == debt.period_id
        assert await debt.owed() == 0
        assert await account_balances(debt.client) == {
            "receivable": 30,
            "usage_revenue": -130,
            "bad_debt": 100,
        }
        before = await debt.client.balance(
            debt.id, as_of=moment(made.created_at) - timedelta.resolution
        )
        assert before.invoiced_amount == 100
        await debt.audit()

    async def test_in_parts(self, debt: Debt) -> None:
        first, second = await debt.write_off(30), await debt.write_off(25)
        assert await debt.owed() == 45
        rest = await debt.write_off()
        assert [each.amount for each in (first, second, rest)] == [30, 25, 45]
        assert await debt.owed() == 0
        assert (await account_balances(debt.client))["bad_debt"] == 100
        await debt.audit()

    async def test_what_payments_left(self, debt: Debt) -> None:
        await debt.pay(60)
        refusal = await debt.refused(debt.write_off(41))
        assert refusal.kind == ("FAILED_PRECONDITION", "WRITE_OFF_EXCEEDS_RECEIVABLE")
        assert refusal.message == (
            f"billing period {debt.period_id} owes 40: 41 cannot be written off"
        )
        assert facts_of(refusal) == {
            "billing_period_id": debt.period_id,
            "amount": "41",
            "receivable": "40",
        }
        assert (await debt.write_off()).amount == 40

    @pytest.mark.parametrize("amount", [0, 1])
    async def test_nothing_is_owed(self, debt: Debt, amount: int) -> None:
        await debt.pay(100)
        refusal = await debt.refused(debt.write_off(amount))
        assert refusal.kind == ("FAILED_PRECONDITION", "WRITE_OFF_EXCEEDS_RECEIVABLE")
        assert (refusal.metadata["amount"], refusal.metadata["receivable"]) == (str(amount), "0")

    async def test_a_later_period_is_billed_as_if_nothing_had_been(self, debt: Debt) -> None:
        await debt.write_off()
        assert (await debt.held.bill("run-2")).total_amount == 30
        balance = await debt.client.balance(debt.id)
        assert (balance.invoiced_amount, balance.outstanding_amount) == (30, 30)
        await debt.audit()

    async def test_a_refund_that_opens_the_invoice_again(self, debt: Debt) -> None:
        """What is owed again can be given up again."""
        payment_id = await debt.pay(100)
        refund = await create_refund(debt.client, payment_id, 100, credit_policy=REVERT_ALL)
        await confirm_refund(debt.client, refund.id)
        assert await debt.owed() == 100
        assert (await debt.write_off()).amount == 100
        assert await debt.owed() == 0
        await debt.audit()

    async def test_of_a_cancelled_subscription(self, debt: Debt) -> None:
        await debt.client.cancel(debt.id, immediately=True)
        await debt.write_off()
        balance = await debt.client.balance(debt.id)
        assert (balance.outstanding_amount, balance.invoiced_amount) == (30, 30)
        await debt.audit()


class TestRefused:
    async def test_a_period_that_is_not_invoiced(self, debt: Debt) -> None:
        open_id = (await debt.held.get()).current_period_id
        refusal = await debt.refused(debt.write_off(1, billing_period_id=open_id))
        assert refusal.kind == ("FAILED_PRECONDITION", "BILLING_PERIOD_NOT_INVOICED")
        assert facts_of(refusal) == {"billing_period_id": open_id, "status": "open"}

    async def test_a_period_whose_invoice_is_not_delivered(
        self, held: CreditedSubscription, invoicing: ReferenceInvoicingServer
    ) -> None:
        await held.use(100, february(3))
        invoicing.error_rate = 1.0
        billed = await held.bill("run-1")
        refusal = await refusal_of(write_off(held.client, held.id, billed.billing_period_id))
        assert refusal.kind == ("FAILED_PRECONDITION", "BILLING_PERIOD_NOT_INVOICED")
        assert refusal.metadata["status"] == "billed"

    async def test_another_currency(self, debt: Debt) -> None:
        refusal = await debt.refused(debt.write_off(1, currency="EUR"))
        assert refusal.kind == ("INVALID_ARGUMENT", "CURRENCY_MISMATCH")


class TestRecovered:
    async def test_the_whole(self, debt: Debt) -> None:
        made = await debt.write_off()
        after = await recover(debt.client, made.id)
        assert (after.amount, after.recovered_amount) == (100, 100)
        assert moment(after.updated_at) > moment(made.updated_at)
        assert after.created_at == made.created_at
        assert await get_write_off(debt.client, made.id) == after
        entry = (await debt.held.entries(WRITTEN_OFF))[-1]
        assert moves([entry]) == [Move(OWED_AGAIN[0], -100, *OWED_AGAIN[1:])]
        assert sources_of(entry) == {"write_off": made.id}
        transaction = await ledger_transaction(debt.client, entry.ledger_transaction_id)
        assert transaction.initiating_source_type == "write_off_recovery"
        assert transaction.initiating_source_id == made.id
        assert await debt.owed() == 100
        assert (await account_balances(debt.client))["bad_debt"] == 0
        await debt.audit()

    async def test_in_parts_and_no_more(self, debt: Debt) -> None:
        made = await debt.write_off(80)
        assert (await recover(debt.client, made.id, amount=30)).recovered_amount == 30
        refusal = await debt.refused(recover(debt.client, made.id, amount=51))
        assert refusal.kind == ("FAILED_PRECONDITION", "WRITE_OFF_EXCEEDED")
        assert facts_of(refusal) == {"write_off_id": made.id, "amount": "51", "left": "50"}
        assert (await recover(debt.client, made.id)).recovered_amount == 80
        assert await debt.owed() == 100
        await debt.audit()

    @pytest.mark.parametrize("amount", [0, 1])
    async def test_already(self, debt: Debt, amount: int) -> None:
        made = await debt.write_off()
        await recover(debt.client, made.id)
        refusal = await debt.refused(recover(debt.client, made.id, amount=amount))
        assert refusal.kind == ("FAILED_PRECONDITION", "WRITE_OFF_EXCEEDED")
        assert refusal.metadata["left"] == "0"

    async def test_and_given_up_again(self, debt: Debt) -> None:
        made = await debt.write_off()
        await recover(debt.client, made.id, amount=60)
        again = await debt.write_off()
        assert again.amount == 60
        assert again.id != made.id
        assert (await account_balances(debt.client))["bad_debt"] == 100


class TestPaid:
    async def test_a_payment_recovers_what_it_pays(self, debt: Debt) -> None:
        made = await debt.write_off()

        payment_id = await debt.pay(100)

        assert await debt.owed() == 0
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 100
        [settled] = await debt.held.applications(kind=SETTLEMENT)
        assert settled.amount_applied == 100
        transaction = await ledger_transaction(debt.client, settled.ledger_transaction_id)
        assert transaction.initiating_source_type == "payment"
        assert transaction.initiating_source_id == payment_id
        recovered = [m for m in moves(transaction.entries) if m.entry_type == OWED_AGAIN[0]]
        assert recovered == [Move(OWED_AGAIN[0], -100, *OWED_AGAIN[1:])]
        assert await account_balances(debt.client) == {
            "receivable": 30,
            "usage_revenue": -130,
            "bad_debt": 0,
            "cash": 100,
            "credit": 0,
        }
        await debt.audit()

    async def test_what_is_owed_is_paid_first(self, debt: Debt) -> None:
        made = await debt.write_off(70)
        await debt.pay(30)
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 0
        assert await debt.owed() == 0
        await debt.pay(25)
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 25
        assert await debt.owed() == 0
        await debt.audit()

    async def test_the_oldest_write_off_first(self, debt: Debt) -> None:
        made = [await debt.write_off(amount) for amount in (40, 35, 25)]
        await debt.pay(50)
        left = [await get_write_off(debt.client, each.id) for each in made]
        assert [each.recovered_amount for each in left] == [40, 10, 0]
        await debt.audit()

    async def test_what_is_more_than_that_stays_a_credit(self, debt: Debt) -> None:
        await debt.write_off(60)
        await debt.pay(130)
        assert await debt.owed() == 0
        [credit] = await credits_of(debt.client, debt.id)
        assert credit.remaining_amount == 30
        assert credit.status == usage_credit_pb2.USAGE_CREDIT_STATUS_PARTIALLY_USED
        await debt.audit()

    async def test_what_was_recovered_by_hand_is_not_recovered_again(self, debt: Debt) -> None:
        made = await debt.write_off()
        await recover(debt.client, made.id, amount=100)
        await debt.pay(100)
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 100
        assert len(await debt.held.entries(WRITTEN_OFF)) == 2
        assert await debt.owed() == 0

    async def test_a_payment_begun_before_it(self, debt: Debt) -> None:
        payment = await create_payment(
            debt.client, debt.id, 80, billing_period_id=debt.period_id, confirm=False
        )
        made = await debt.write_off()
        await confirm_payment(debt.client, payment.id)
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 80
        assert await debt.owed() == 0

    async def test_a_top_up_recovers_nothing(self, debt: Debt) -> None:
        made = await debt.write_off()
        await create_payment(debt.client, debt.id, 100)
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 0


class TestAtOnce:
    async def test_no_more_is_given_up_than_is_owed(self, debt: Debt) -> None:
        outcomes = await asyncio.gather(*[outcome_of(debt.write_off(30)) for _ in range(6)])
        assert sorted(outcomes) == [""] * 3 + ["WRITE_OFF_EXCEEDS_RECEIVABLE"] * 3
        assert await debt.owed() == 10
        await debt.audit()

    async def test_no_more_is_recovered_than_was_given_up(self, debt: Debt) -> None:
        made = await debt.write_off(100)
        outcomes = await asyncio.gather(
            *[outcome_of(recover(debt.client, made.id, amount=30)) for _ in range(6)]
        )
        assert sorted(outcomes) == [""] * 3 + ["WRITE_OFF_EXCEEDED"] * 3
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 90
        assert await debt.owed() == 90
        await debt.audit()

    async def test_a_payment_and_its_recovery_by_hand(self, debt: Debt) -> None:
        """Either recovers it; the payment pays it once."""
        made = await debt.write_off()
        outcomes = await asyncio.gather(
            outcome_of(debt.pay(100)), outcome_of(recover(debt.client, made.id, amount=100))
        )
        assert outcomes[0] == ""
        assert outcomes[1] in ("", "WRITE_OFF_EXCEEDED")
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 100
        assert await debt.owed() == 0
        await debt.audit()

    async def test_a_write_off_and_a_payment(self, debt: Debt) -> None:
        """Together they are what is owed: whoever is first, nothing is recovered."""
        made, _ = await asyncio.gather(debt.write_off(40), debt.pay(60))
        assert await debt.owed() == 0
        assert (await get_write_off(debt.client, made.id)).recovered_amount == 0
        await debt.audit()
