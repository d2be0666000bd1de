"""What refunds charge: settlements that are taken back, and deficits of the open period."""

from datetime import timedelta

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import payment_pb2
from billing.v1 import refund_pb2 as pb
from billing.v1 import usage_credit_pb2 as credit_pb
from tests.factories.billing_runs import APRIL, MARCH, MAY
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credits import (
    applications,
    confirm_refund,
    create_refund,
    credit,
    fail_refund,
)
from tests.factories.customers import (
    API_CALLS,
    BASE_PRICE,
    STORAGE,
    Customer,
    Owed,
    lines_of,
    new_customer,
)
from tests.factories.ledger_moves import (
    Move,
    account_balances,
    ledger_transaction,
    moves,
    sources_of,
)
from tests.factories.payments import get_payment

SETTLEMENT = credit_pb.CREDIT_APPLICATION_KIND_SETTLEMENT
RUN = credit_pb.CREDIT_APPLICATION_KIND_RUN
DAY = timedelta(days=1)
JUNE = MAY + timedelta(days=31)
DEFICIT = Move("credit_deficit_charged", -300, "receivable", "refund_clearing")


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March that used 30 of API calls and 60 of storage."""
    customer = await new_customer(client, clock)
    await customer.use(15, API_CALLS)
    await customer.use(20, STORAGE)
    return customer


async def settle(customer: Customer, amount: int) -> payment_pb2.Payment:
    return await customer.pay(amount, billing_period_id=customer.period_id)


async def take_back(customer: Customer, payment: payment_pb2.Payment, amount: int) -> pb.Refund:
    """A pending refund that takes all of it back."""
    return await create_refund(
        customer.client, payment.id, amount, credit_policy=pb.REFUND_CREDIT_POLICY_REVERT_ALL
    )


async def settled(customer: Customer) -> list[tuple[int, int]]:
    """What settlements paid, and what of it was taken back since."""
    rows = await applications(customer.client, customer.subscription_id, kind=SETTLEMENT)
    return [(row.amount_applied, row.reversed_amount) for row in rows]


async def deficits(customer: Customer, refund: pb.Refund) -> list[tuple[Move, str]]:
    """A refund's charges of a deficit, with their periods; clearing is zero with all of them."""
    await account_balances(customer.client)
    transaction = await ledger_transaction(customer.client, refund.ledger_transaction_id)
    return [
        (move, entry.billing_period_id)
        for move, entry in zip(moves(transaction.entries), transaction.entries, strict=True)
        if move.entry_type == "credit_deficit_charged"
    ]


class TestReversal:
    """What a settlement paid is owed again once its money went back, and not before."""

    async def test_an_invoiced_period_is_owed_again(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        await customer.bill()
        payment = await settle(customer, 1090)
        assert await customer.owed() == Owed()
        refund = await take_back(customer, payment, 1030)
        assert (refund.clawed_back_amount, refund.reversed_amount) == (0, 1030)
        assert await settled(customer) == [(30, 0), (60, 0), (BASE_PRICE, 0)]
        assert (await get_payment(customer.client, payment.id)).settled_amount == 1090
        assert await customer.owed() == Owed()
        invoices = customer.invoices(invoicing)
        await confirm_refund(customer.client, refund.id)
        assert await settled(customer) == [(30, 0), (60, 30), (BASE_PRICE, BASE_PRICE)]
        assert (await get_payment(customer.client, payment.id)).settled_amount == 60
        assert await customer.owed() == Owed(invoiced=1030)
        assert customer.invoices(invoicing) == invoices, "an invoice never changes"
        assert (await credit(customer.client, payment.usage_credit_id)).remaining_amount == 0

    async def test_each_reversal_names_what_it_reverses(self, customer: Customer) -> None:
        payment = await settle(customer, 90)
        refund = await take_back(customer, payment, 90)
        await confirm_refund(customer.client, refund.id)
        rows = await applications(customer.client, customer.subscription_id)
        transaction = await ledger_transaction(customer.client, refund.ledger_transaction_id)
        reversals = [
            entry
            for entry, move in zip(transaction.entries, moves(transaction.entries), strict=True)
            if move.entry_type == "credit_application_reversed"
        ]
        assert [entry.amount for entry in reversals] == [-60, -30]
        for entry, row in zip(reversals, reversed(rows), strict=True):
            assert sources_of(entry) == {
                "usage_credit": payment.usage_credit_id,
                "credit_application": row.id,
            }
            assert entry.billing_period_id == customer.period_id
            assert entry.usage_meter_id == row.usage_meter_id
            assert entry.credit_account_id == payment.usage_credit_id.replace("credit_", "account_")

    async def test_it_can_be_settled_again(self, customer: Customer) -> None:
        await customer.bill()
        first = await settle(customer, 1090)
        refund = await take_back(customer, first, 1090)
        too_early = await settle(customer, 10)
        assert too_early.settled_amount == 0
        await confirm_refund(customer.client, refund.id)
        again = await settle(customer, 1100)
        assert again.settled_amount == 1090
        rows = await applications(
            customer.client, customer.subscription_id, usage_credit_id=again.usage_credit_id
        )
        assert [row.amount_applied for row in rows] == [30, 60, BASE_PRICE]
        assert await customer.owed() == Owed(credit_balance=20, available_credit=20)

    async def test_an_open_period_is_owed_again_and_its_run_lets_credits_pay(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        payment = await settle(customer, 90)
        refund = await take_back(customer, payment, 70)
        await confirm_refund(customer.client, refund.id)
        assert await customer.owed() == Owed(unbilled=70)
        granted = await customer.grant(500, effective_at=MARCH)
        await customer.bill()
        rows = await applications(customer.client, customer.subscription_id, kind=RUN)
        assert [(row.usage_credit_id, row.amount_applied) for row in rows] == [
            (granted.id, 10),
            (granted.id, 60),
        ]
        assert lines_of(customer.invoices(invoicing)[0])["Credits applied"] == -70
        assert await customer.owed() == Owed(
            invoiced=BASE_PRICE, credit_balance=430, available_credit=430
        )

    async def test_a_run_between_counts_it_as_paid_until_the_confirmation(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        payment = await settle(customer, 90)
        refund = await take_back(customer, payment, 90)
        await customer.grant(500, effective_at=MARCH)
        await customer.bill()
        assert await applications(customer.client, customer.subscription_id, kind=RUN) == []
        assert customer.invoices(invoicing)[0].total_amount == BASE_PRICE + 90
        owed = await customer.owed()
        assert owed.invoiced == BASE_PRICE
        await confirm_refund(customer.client, refund.id)
        assert await customer.owed() == owed._replace(invoiced=BASE_PRICE + 90)

    async def test_refunds_in_parts_take_back_each_cent_once(self, customer: Customer) -> None:
        await customer.bill()
        payment = await settle(customer, 1100)
        made = [await take_back(customer, payment, amount) for amount in (510, 515, 70)]
        parts = [(r.clawed_back_amount, r.reversed_amount, r.deficit_amount) for r in made]
        assert parts == [(10, 500, 0), (0, 515, 0), (0, 70, 0)]
        await fail_refund(customer.client, made[1].id)
        instead = await take_back(customer, payment, 520)
        assert (instead.reversed_amount, instead.deficit_amount) == (520, 0)
        for refund in (made[2], instead, made[0]):
            await confirm_refund(customer.client, refund.id)
            await account_balances(customer.client)
        assert await settled(customer) == [(30, 30), (60, 60), (BASE_PRICE, BASE_PRICE)]
        assert await customer.owed() == Owed(invoiced=1090)
        assert (await get_payment(customer.client, payment.id)).settled_amount == 0

    async def test_a_billed_period_without_its_invoice_is_owed_again(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        invoicing.error_rate = 1.0
        await customer.bill()
        payment = await settle(customer, 1090)
        refund = await take_back(customer, payment, 1090)
        await confirm_refund(customer.client, refund.id)
        assert await customer.owed() == Owed(billed_not_invoiced=1090)
        invoicing.error_rate = 0.0
        await customer.bill(APRIL + 2 * DAY)
        assert await customer.owed() == Owed(invoiced=1090)

    async def test_an_earlier_period_is_owed_again(self, customer: Customer) -> None:
        await customer.bill()
        payment = await settle(customer, 1090)
        await customer.bill(MAY + DAY)
        refund = await take_back(customer, payment, 90)
        await confirm_refund(customer.client, refund.id)
        assert await customer.owed() == Owed(invoiced=BASE_PRICE + 90)


class TestDeficit:
    """What cannot be taken back is owed, in the period that is open at the confirmation."""

    async def spent(self, customer: Customer) -> payment_pb2.Payment:
        """A top-up of 300 that March took, as it was billed."""
        payment = await customer.pay(300)
        await customer.bill()
        assert (await credit(customer.client, payment.usage_credit_id)).remaining_amount == 0
        return payment

    async def test_it_is_on_the_invoice_of_the_open_period(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        payment = await self.spent(customer)
        owed = await customer.owed()
        refund = await take_back(customer, payment, 300)
        april = await customer.current_period_id()
        assert await deficits(customer, refund) == [(DEFICIT._replace(state="pending"), april)]
        assert await customer.owed() == owed
        await confirm_refund(customer.client, refund.id)
        assert await deficits(customer, refund) == [(DEFICIT, april)]
        assert await customer.owed() == owed._replace(unbilled=300)
        await customer.bill(MAY + DAY)
        april_invoice = customer.invoices(invoicing)[1]
        assert lines_of(april_invoice)["Credit taken back"] == 300
        assert april_invoice.total_amount == BASE_PRICE + 300

    async def test_billed_meanwhile_it_is_for_the_period_that_is_open_then(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        payment = await self.spent(customer)
        refund = await take_back(customer, payment, 300)
        april = await customer.current_period_id()
        await customer.bill(MAY + DAY)
        may = await customer.current_period_id()
        assert "Credit taken back" not in lines_of(customer.invoices(invoicing)[1])
        owed = await customer.owed()
        await confirm_refund(customer.client, refund.id)
        assert await deficits(customer, refund) == [
            (DEFICIT._replace(state="discarded"), april),
            (DEFICIT, may),
        ]
        assert await customer.owed() == owed._replace(unbilled=300)
        await customer.bill(JUNE + DAY)
        assert lines_of(customer.invoices(invoicing)[2])["Credit taken back"] == 300

    async def test_of_a_cancelled_subscription_it_is_for_the_last_period(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        payment = await self.spent(customer)
        await customer.client.cancel(customer.subscription_id, immediately=True)
        last = await customer.current_period_id()
        invoices, owed = customer.invoices(invoicing), await customer.owed()
        refund = await take_back(customer, payment, 300)
        assert await deficits(customer, refund) == [(DEFICIT._replace(state="pending"), last)]
        await confirm_refund(customer.client, refund.id)
        assert await deficits(customer, refund) == [(DEFICIT, last)]
        assert await customer.owed() == owed._replace(invoiced=owed.invoiced + 300)
        assert customer.invoices(invoicing) == invoices, "an invoice never changes"
        settlement = await customer.pay(5000, billing_period_id=last)
        assert settlement.settled_amount >= 300

    async def test_cancelled_meanwhile_it_is_for_the_last_period_too(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        payment = await self.spent(customer)
        refund = await take_back(customer, payment, 300)
        await customer.client.cancel(customer.subscription_id, immediately=True)
        last = await customer.current_period_id()
        owed = await customer.owed()
        await confirm_refund(customer.client, refund.id)
        posted = [found for found in await deficits(customer, refund) if found[0] == DEFICIT]
        assert posted == [(DEFICIT, last)]
        assert await customer.owed() == owed._replace(invoiced=owed.invoiced + 300)

    async def test_a_failed_refund_charges_nothing(self, customer: Customer) -> None:
        payment = await self.spent(customer)
        owed = await customer.owed()
        refund = await take_back(customer, payment, 300)
        await customer.bill(MAY + DAY)
        await fail_refund(customer.client, refund.id)
        ((deficit, _),) = await deficits(customer, refund)
        assert deficit.state == "discarded"
        assert await customer.owed() == owed._replace(invoiced=owed.invoiced + BASE_PRICE)

    async def test_a_cancelled_subscription_gets_its_unused_money_back(
        self, customer: Customer
    ) -> None:
        payment = await customer.pay(5000)
        await customer.client.cancel(customer.subscription_id, immediately=True)
        left = (await credit(customer.client, payment.usage_credit_id)).remaining_amount
        assert 0 < left < 5000
        refund = await create_refund(customer.client, payment.id, left)
        await confirm_refund(customer.client, refund.id)
        assert await customer.owed() == Owed(invoiced=90), "it was used before it was paid for"
        assert (await account_balances(customer.client))["cash"] == 5000 - left
