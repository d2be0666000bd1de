"""Settlements: a payment pays at once what its period owes, and never more than that."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import ledger_pb2, payment_pb2
from billing.v1 import usage_credit_pb2 as pb
from tests.factories.billing_runs import APRIL, MARCH, MAY
from tests.factories.client import BillingClient
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import adjust_credit
from tests.factories.credits import applications, confirm_payment, credit
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
    nothing_written,
    sources_of,
)
from tests.factories.payments import get_payment

SETTLEMENT = pb.CREDIT_APPLICATION_KIND_SETTLEMENT
RUN = pb.CREDIT_APPLICATION_KIND_RUN
DAY = timedelta(days=1)


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March that used 30 of API calls and 60 of storage, storage first."""
    customer = await new_customer(client, clock)
    assert await customer.use(20, STORAGE) == 60
    assert await customer.use(15, API_CALLS) == 30
    return customer


async def settle(customer: Customer, amount: int, **terms: Any) -> payment_pb2.Payment:
    """Pay what March owes."""
    return await customer.pay(amount, **{"billing_period_id": customer.period_id, **terms})


async def charge_deficit(customer: Customer, amount: int) -> None:
    """Let the subscription owe for a credit that is taken back."""
    granted = await customer.grant(1)
    await adjust_credit(customer.client, granted.id, -1 - amount, allow_deficit=True)


async def settled(customer: Customer, payment: payment_pb2.Payment) -> list[tuple[str, int]]:
    """What a payment paid: ids of components, or nothing for charges, with the amounts."""
    rows = await applications(
        customer.client,
        customer.subscription_id,
        usage_credit_id=payment.usage_credit_id,
        kind=SETTLEMENT,
    )
    assert payment.settled_amount == sum(row.amount_applied for row in rows)
    return [(row.component_id, row.amount_applied) for row in rows]


async def entries_of(
    customer: Customer, payment: payment_pb2.Payment
) -> list[ledger_pb2.LedgerEntry]:
    """The entries of a payment's one transaction."""
    (recognized,) = [e for e in await customer.entries() if e.source_payment_id == payment.id]
    transaction = await ledger_transaction(customer.client, recognized.ledger_transaction_id)
    assert transaction.initiating_source_id == payment.id
    return list(transaction.entries)


class TestOpenPeriod:
    """An open period owes its usage so far, and what credits could not give back."""

    async def test_it_pays_usage_in_the_plans_order_then_deficits(self, customer: Customer) -> None:
        await charge_deficit(customer, 7)
        assert await customer.owed() == Owed(unbilled=97)
        payment = await settle(customer, 500)
        api_calls, storage = customer.component_ids
        assert await settled(customer, payment) == [(api_calls, 30), (storage, 60), ("", 7)]
        assert payment.settled_amount == 97
        assert await customer.owed() == Owed(credit_balance=403, available_credit=403)
        made = await credit(customer.client, payment.usage_credit_id)
        assert made.credit_type == pb.USAGE_CREDIT_TYPE_PAYMENT_PERIOD_SETTLEMENT
        assert made.source_reference_id == payment.id
        assert (made.issued_amount, made.remaining_amount) == (500, 403)
        assert made.status == pb.USAGE_CREDIT_STATUS_PARTIALLY_USED
        assert not made.billing_period_id, "what is left is spendable anywhere"

    async def test_every_application_has_its_entry_in_the_payments_transaction(
        self, customer: Customer
    ) -> None:
        await charge_deficit(customer, 7)
        payment = await settle(customer, 500)
        recognized, *applied = await entries_of(customer, payment)
        assert moves([recognized, *applied]) == [
            Move("payment_recognized", 500, "cash", "credit"),
            Move("credit_applied_to_usage", 30, "credit", "receivable"),
            Move("credit_applied_to_usage", 60, "credit", "receivable"),
            Move("credit_applied_to_charge", 7, "credit", "receivable"),
        ]
        rows = await applications(customer.client, customer.subscription_id, kind=SETTLEMENT)
        for entry, row, meter_id in zip(applied, rows, (*customer.meter_ids, ""), strict=True):
            assert sources_of(entry) == {
                "usage_credit": payment.usage_credit_id,
                "credit_application": row.id,
            }
            assert entry.debit_account_id == payment.usage_credit_id.replace("credit_", "account_")
            assert entry.billing_period_id == row.billing_period_id == customer.period_id
            assert entry.usage_meter_id == row.usage_meter_id == meter_id
            assert entry.calculation_run_id == row.calculation_run_id
            assert entry.ledger_transaction_id == row.ledger_transaction_id
            assert entry.posted_at == row.applied_at
            assert (row.kind, row.reversed_amount) == (SETTLEMENT, 0)
            assert row.currency == "USD"
        assert len({row.calculation_run_id for row in rows}) == 1
        assert rows[0].calculation_run_id.startswith("calcrun_")

    async def test_a_small_payment_pays_a_part_and_the_next_one_goes_on(
        self, customer: Customer
    ) -> None:
        api_calls, storage = customer.component_ids
        for amount, expected, owed in (
            (10, [(api_calls, 10)], 80),
            (25, [(api_calls, 20), (storage, 5)], 55),
            (55, [(storage, 55)], 0),
        ):
            payment = await settle(customer, amount)
            assert await settled(customer, payment) == expected
            assert await customer.owed() == Owed(unbilled=owed)
            made = await credit(customer.client, payment.usage_credit_id)
            assert made.status == pb.USAGE_CREDIT_STATUS_FULLY_USED
        nothing_owed = await settle(customer, 40)
        assert await settled(customer, nothing_owed) == []
        assert await customer.owed() == Owed(credit_balance=40, available_credit=40)

    async def test_the_run_does_not_pay_it_twice_and_the_invoice_shows_no_settlement(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        payment = await settle(customer, 150)
        assert payment.settled_amount == 90
        await customer.use(5, API_CALLS)
        await customer.bill()
        (invoice,) = customer.invoices(invoicing)
        assert list(lines_of(invoice).values()) == [BASE_PRICE, 40, 60, -60]
        assert lines_of(invoice)["Credits applied"] == -60
        assert invoice.total_amount == BASE_PRICE + 40
        assert await customer.owed() == Owed(invoiced=BASE_PRICE - 50)
        assert await account_balances(customer.client) == {
            "cash": 150,
            "credit": 0,
            "receivable": BASE_PRICE - 50,
            "usage_revenue": -100,
            "subscription_revenue": -BASE_PRICE,
        }
        assert (await get_payment(customer.client, payment.id)).settled_amount == 90

    async def test_credits_that_are_over_pay_first(self, customer: Customer) -> None:
        over = await customer.grant(500, effective_at=MARCH, expires_at=START + DAY)
        customer.clock.set(START + 2 * DAY)
        late = await customer.use(2, API_CALLS)
        payment = await settle(customer, 500)
        assert payment.settled_amount == late
        run = await applications(customer.client, customer.subscription_id, kind=RUN)
        assert [row.amount_applied for row in run] == [30, 60]
        after = await credit(customer.client, over.id)
        assert after.status == pb.USAGE_CREDIT_STATUS_EXPIRED
        assert await customer.owed() == Owed(credit_balance=496, available_credit=496)

    async def test_living_credits_do_not_pay_before_the_run(self, customer: Customer) -> None:
        await customer.grant(40, effective_at=MARCH)
        payment = await settle(customer, 90)
        assert payment.settled_amount == 90
        await customer.bill()
        assert await applications(customer.client, customer.subscription_id, kind=RUN) == []
        assert await customer.owed() == Owed(
            invoiced=BASE_PRICE, credit_balance=40, available_credit=40
        )

    async def test_a_later_period_can_be_settled_while_the_first_waits_for_its_run(
        self, customer: Customer
    ) -> None:
        customer.clock.set(APRIL + DAY)
        cost = await customer.use(8, API_CALLS)
        april = (await customer.entries())[-1].billing_period_id
        assert april != customer.period_id
        payment = await settle(customer, 100, billing_period_id=april)
        assert await settled(customer, payment) == [(customer.component_ids[API_CALLS], cost)]
        assert await customer.owed() == Owed(
            unbilled=90, credit_balance=100 - cost, available_credit=100 - cost
        )


class TestClosedPeriod:
    """A billed period owes its invoice, less what was paid of it."""

    @pytest.mark.parametrize("is_invoiced", [False, True], ids=["billed", "invoiced"])
    async def test_it_pays_usage_then_charges_and_never_more(
        self, customer: Customer, invoicing: ReferenceInvoicingServer, is_invoiced: bool
    ) -> None:
        invoicing.error_rate = 0.0 if is_invoiced else 1.0
        await customer.bill()
        part = Owed(invoiced=1090) if is_invoiced else Owed(billed_not_invoiced=1090)
        assert await customer.owed() == part
        payment = await settle(customer, 1200)
        api_calls, storage = customer.component_ids
        assert await settled(customer, payment) == [
            (api_calls, 30),
            (storage, 60),
            ("", BASE_PRICE),
        ]
        assert moves(await entries_of(customer, payment)) == [
            Move("payment_recognized", 1200, "cash", "credit"),
            Move("credit_applied_to_usage", 30, "credit", "receivable"),
            Move("credit_applied_to_usage", 60, "credit", "receivable"),
            Move("credit_applied_to_charge", BASE_PRICE, "credit", "receivable"),
        ]
        assert await customer.owed() == Owed(credit_balance=110, available_credit=110)
        again = await settle(customer, 20)
        assert again.settled_amount == 0
        assert await customer.owed() == Owed(credit_balance=130, available_credit=130)

    async def test_what_is_paid_before_the_delivery_of_the_invoice_stays_paid(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        invoicing.error_rate = 1.0
        await customer.bill()
        await settle(customer, 90)
        assert await customer.owed() == Owed(billed_not_invoiced=BASE_PRICE)
        invoicing.error_rate = 0.0
        await customer.bill(APRIL + 2 * DAY)
        assert await customer.owed() == Owed(invoiced=BASE_PRICE)
        (invoice,) = customer.invoices(invoicing)
        assert invoice.total_amount == BASE_PRICE + 90

    async def test_parts_are_paid_in_the_same_order(self, customer: Customer) -> None:
        await customer.bill()
        api_calls, storage = customer.component_ids
        for amount, expected in (
            (50, [(api_calls, 30), (storage, 20)]),
            (100, [(storage, 40), ("", 60)]),
            (BASE_PRICE, [("", BASE_PRICE - 60)]),
        ):
            assert await settled(customer, await settle(customer, amount)) == expected
        assert await customer.owed() == Owed(credit_balance=60, available_credit=60)

    async def test_what_credits_paid_is_not_owed_any_more(self, customer: Customer) -> None:
        await customer.grant(45, effective_at=MARCH)
        await customer.bill()
        assert await customer.owed() == Owed(invoiced=1045)
        payment = await settle(customer, 1100)
        assert await settled(customer, payment) == [
            (customer.component_ids[STORAGE], 45),
            ("", BASE_PRICE),
        ]
        assert await customer.owed() == Owed(credit_balance=55, available_credit=55)

    async def test_what_is_left_pays_the_next_period_by_its_run(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        await customer.bill()
        payment = await settle(customer, 1590)
        cost = await customer.use(50, API_CALLS)
        await customer.bill(MAY + DAY)
        run = await applications(customer.client, customer.subscription_id, kind=RUN)
        assert [(row.usage_credit_id, row.amount_applied) for row in run] == [
            (payment.usage_credit_id, cost),
            (payment.usage_credit_id, 500 - cost),
        ]
        march, april = customer.invoices(invoicing)
        assert "Credits applied" not in lines_of(march)
        assert lines_of(april)["Credits applied"] == -500
        assert await customer.owed() == Owed(invoiced=BASE_PRICE + cost - 500)

    async def test_a_period_billed_before_the_confirmation_is_settled_as_it_is_then(
        self, customer: Customer
    ) -> None:
        pending = await settle(customer, 1090, confirm=False)
        await customer.bill()
        payment = await confirm_payment(customer.client, pending.id)
        assert payment.settled_amount == 1090
        assert await customer.owed() == Owed()

    async def test_the_last_period_of_a_cancelled_subscription_can_be_settled(
        self, customer: Customer
    ) -> None:
        await customer.client.cancel(customer.subscription_id, immediately=True)
        owed = (await customer.owed()).invoiced
        payment = await settle(customer, owed + 5)
        assert payment.settled_amount == owed
        assert await customer.owed() == Owed(credit_balance=5, available_credit=5)

    async def test_an_earlier_period_than_the_last_one_can_be_settled(
        self, customer: Customer
    ) -> None:
        await customer.bill()
        await customer.bill(MAY + DAY)
        assert await customer.owed() == Owed(invoiced=1090 + BASE_PRICE)
        payment = await settle(customer, 5000)
        assert payment.settled_amount == 1090
        assert await customer.owed() == Owed(
            invoiced=BASE_PRICE, credit_balance=3910, available_credit=3910
        )

    async def test_payments_at_the_same_time_pay_it_once(self, customer: Customer) -> None:
        await customer.bill()
        pending = [await settle(customer, 700, confirm=False) for _ in range(3)]
        payments = await asyncio.gather(
            *(confirm_payment(customer.client, each.id) for each in pending)
        )
        assert sorted(payment.settled_amount for payment in payments) == [0, 390, 700]
        assert await customer.owed() == Owed(credit_balance=1010, available_credit=1010)


class TestInvoiceLink:
    """The invoice that is paid: as it was told, else that of the period, once there is one."""

    async def test_it_is_the_periods(
        self, customer: Customer, invoicing: ReferenceInvoicingServer
    ) -> None:
        early = await settle(customer, 10)
        assert early.invoice_id == ""
        pending = await settle(customer, 10, confirm=False)
        await customer.bill()
        (invoice,) = customer.invoices(invoicing)
        assert (await settle(customer, 10)).invoice_id == invoice.id
        confirmed = await confirm_payment(customer.client, pending.id)
        assert confirmed.invoice_id == invoice.id
        assert await get_payment(customer.client, pending.id) == confirmed

    async def test_what_was_told_stays(self, customer: Customer) -> None:
        await customer.bill()
        payment = await settle(customer, 10, invoice_id="paper-7")
        assert payment.invoice_id == "paper-7"

    async def test_a_top_up_has_none(self, customer: Customer) -> None:
        await customer.bill()
        assert (await customer.pay(10)).invoice_id == ""


async def test_a_repeated_confirmation_settles_nothing_more(customer: Customer) -> None:
    payment = await settle(customer, 50)
    await customer.bill()
    async with nothing_written(customer.client, customer.subscription_id):
        assert await confirm_payment(customer.client, payment.id) == payment
