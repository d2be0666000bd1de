"""What a refund takes back: by its policy, and by what became of the credit meanwhile."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple

import pytest

from billing.v1 import payment_pb2
from billing.v1 import refund_pb2 as pb
from billing.v1 import usage_credit_pb2 as credit_pb
from tests.factories.billing_runs import APRIL
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import DECREASE, adjust_credit, adjustments_of, void_credit
from tests.factories.credits import confirm_refund, create_refund, credit, fail_refund
from tests.factories.customers import API_CALLS, STORAGE, Customer, new_customer
from tests.factories.ledger_moves import (
    Move,
    account_balances,
    ledger_transaction,
    moves,
    sources_of,
)

DEFAULT, REVERT_UNUSED, REVERT_ALL, KEEP = (
    pb.REFUND_CREDIT_POLICY_UNSPECIFIED,
    pb.REFUND_CREDIT_POLICY_REVERT_UNUSED,
    pb.REFUND_CREDIT_POLICY_REVERT_ALL,
    pb.REFUND_CREDIT_POLICY_KEEP,
)
ACCOUNTS = {
    "payment_refunded": ("refund_clearing", "cash"),
    "credit_application_reversed": ("receivable", "credit"),
    "credit_balance_adjusted": ("credit", "refund_clearing"),
    "credit_deficit_charged": ("receivable", "refund_clearing"),
    "refund_absorbed": ("refunds_and_allowances", "refund_clearing"),
}


class Parts(NamedTuple):
    """What a refund is made of; zero clearing means that they add up to it."""

    clawed_back: int = 0
    reversed: int = 0
    deficit: int = 0
    absorbed: int = 0


class Case(NamedTuple):
    """A refund of a payment whose credit is in a state, and the entries that it makes.

    ``pending`` at its creation, ``added`` at its confirmation.
    """

    state: Callable[[Customer], Awaitable[payment_pb2.Payment]]
    amount: int
    policy: pb.RefundCreditPolicy.ValueType
    parts: Parts
    pending: list[tuple[str, int]]
    added: list[tuple[str, int]]


async def unused(customer: Customer) -> payment_pb2.Payment:
    """A top-up of 1000."""
    return await customer.pay(1000)


async def partly_used(customer: Customer) -> payment_pb2.Payment:
    """A top-up of 1000, of which a run took 700."""
    payment = await customer.pay(1000)
    await customer.use(350, API_CALLS)
    await customer.bill()
    return payment


async def settled(customer: Customer, amount: int = 150) -> payment_pb2.Payment:
    """A settlement of 150 that paid 30 for API calls, then 60 for storage, then a deficit of 7."""
    await customer.use(15, API_CALLS)
    await customer.use(20, STORAGE)
    granted = await customer.grant(1)
    await adjust_credit(customer.client, granted.id, -8, allow_deficit=True)
    payment = await customer.pay(amount, billing_period_id=customer.period_id)
    assert payment.settled_amount == 97
    return payment


async def settled_whole(customer: Customer) -> payment_pb2.Payment:
    """A settlement of which nothing is left."""
    return await settled(customer, 97)


async def settled_and_used(customer: Customer) -> payment_pb2.Payment:
    """A settlement of 150 of which nothing is left, because a run took the remaining 53."""
    payment = await settled(customer)
    await customer.use(50, API_CALLS)
    await customer.bill()
    return payment


def _case(
    state: Callable[[Customer], Awaitable[payment_pb2.Payment]],
    policy: pb.RefundCreditPolicy.ValueType,
    amount: int,
    parts: Parts,
    *pending: tuple[str, int],
    added: list[tuple[str, int]] | None = None,
) -> object:
    name = pb.RefundCreditPolicy.Name(policy).removeprefix("REFUND_CREDIT_POLICY_").lower()
    refunded = ("payment_refunded", -amount)
    case = Case(state, amount, policy, parts, [refunded, *pending], added or [])
    return pytest.param(case, id=f"{state.__name__}-{name}-{amount}")


def clawed_back(amount: int) -> tuple[str, int]:
    return "credit_balance_adjusted", -amount


def reversed_(amount: int) -> tuple[str, int]:
    return "credit_application_reversed", -amount


def deficit(amount: int) -> tuple[str, int]:
    return "credit_deficit_charged", -amount


def absorbed(amount: int) -> tuple[str, int]:
    return "refund_absorbed", amount


CASES = pytest.mark.parametrize(
    "case",
    [
        _case(unused, DEFAULT, 600, Parts(600), clawed_back(600)),
        _case(unused, REVERT_UNUSED, 600, Parts(600), clawed_back(600)),
        _case(unused, REVERT_UNUSED, 1000, Parts(1000), clawed_back(1000)),
        _case(unused, REVERT_ALL, 600, Parts(600), clawed_back(600)),
        _case(unused, KEEP, 600, Parts(absorbed=600), added=[absorbed(600)]),
        _case(
            partly_used,
            DEFAULT,
            800,
            Parts(300, absorbed=500),
            clawed_back(300),
            added=[absorbed(500)],
        ),
        _case(partly_used, REVERT_UNUSED, 300, Parts(300), clawed_back(300)),
        _case(
            partly_used,
            REVERT_ALL,
            800,
            Parts(300, deficit=500),
            clawed_back(300),
            deficit(500),
        ),
        _case(partly_used, KEEP, 800, Parts(absorbed=800), added=[absorbed(800)]),
        _case(
            settled,
            REVERT_UNUSED,
            140,
            Parts(53, absorbed=87),
            clawed_back(53),
            added=[absorbed(87)],
        ),
        _case(
            settled,
            REVERT_ALL,
            140,
            Parts(53, 87),
            reversed_(7),
            reversed_(60),
            reversed_(20),
            clawed_back(53),
            added=[clawed_back(87)],
        ),
        _case(settled, REVERT_ALL, 53, Parts(53), clawed_back(53)),
        _case(settled, KEEP, 140, Parts(absorbed=140), added=[absorbed(140)]),
        _case(settled_whole, REVERT_UNUSED, 97, Parts(absorbed=97), added=[absorbed(97)]),
        _case(
            settled_whole,
            REVERT_ALL,
            97,
            Parts(reversed=97),
            reversed_(7),
            reversed_(60),
            reversed_(30),
            added=[clawed_back(97)],
        ),
        _case(
            settled_whole,
            REVERT_ALL,
            50,
            Parts(reversed=50),
            reversed_(7),
            reversed_(43),
            added=[clawed_back(50)],
        ),
        _case(settled_whole, KEEP, 97, Parts(absorbed=97), added=[absorbed(97)]),
        _case(
            settled_and_used,
            REVERT_ALL,
            150,
            Parts(reversed=97, deficit=53),
            reversed_(7),
            reversed_(60),
            reversed_(30),
            deficit(53),
            added=[clawed_back(97)],
        ),
        _case(settled_and_used, DEFAULT, 150, Parts(absorbed=150), added=[absorbed(150)]),
    ],
)


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March, without a base price."""
    return await new_customer(client, clock, base_price_amount=0)


async def begin(customer: Customer, case: Case) -> tuple[payment_pb2.Payment, pb.Refund]:
    """A payment in the state, and the pending refund of it."""
    payment = await case.state(customer)
    refund = await create_refund(
        customer.client, payment.id, case.amount, credit_policy=case.policy
    )
    return payment, refund


def parts_of(refund: pb.Refund) -> Parts:
    parts = Parts(
        refund.clawed_back_amount,
        refund.reversed_amount,
        refund.deficit_amount,
        refund.absorbed_amount,
    )
    assert sum(parts) == refund.amount
    return parts


async def moves_of(customer: Customer, refund: pb.Refund) -> list[Move]:
    transaction = await ledger_transaction(customer.client, refund.ledger_transaction_id)
    return moves(transaction.entries)


def expected(entries: list[tuple[str, int]], state: str) -> list[Move]:
    return [Move(kind, amount, *ACCOUNTS[kind], state) for kind, amount in entries]


@CASES
async def test_what_a_pending_refund_takes_back_is_held(customer: Customer, case: Case) -> None:
    payment = await case.state(customer)
    before = await customer.owed()
    balances = await account_balances(customer.client)
    left = await credit(customer.client, payment.usage_credit_id)
    refund = await create_refund(
        customer.client, payment.id, case.amount, credit_policy=case.policy
    )
    assert refund.status == pb.REFUND_STATUS_PENDING
    assert refund.credit_policy == (case.policy or REVERT_UNUSED)
    assert parts_of(refund) == case.parts
    assert await moves_of(customer, refund) == expected(case.pending, "pending")
    held = await credit(customer.client, payment.usage_credit_id)
    assert held.held_amount == case.parts.clawed_back
    assert held.remaining_amount == left.remaining_amount - case.parts.clawed_back
    assert held.status == left.status
    available = before.available_credit - case.parts.clawed_back
    assert await customer.owed() == before._replace(available_credit=available)
    assert await account_balances(customer.client) == balances, "nothing is posted yet"


@CASES
async def test_a_confirmed_refund_posts_it_and_what_is_given(
    customer: Customer, case: Case
) -> None:
    payment, refund = await begin(customer, case)
    before = await customer.owed()
    balances = await account_balances(customer.client)
    confirmed = await confirm_refund(customer.client, refund.id)
    assert parts_of(confirmed) == case.parts
    assert await moves_of(customer, refund) == expected(case.pending + case.added, "posted")
    after = await credit(customer.client, payment.usage_credit_id)
    assert after.held_amount == 0
    owed = await customer.owed()
    assert owed.credit_balance == before.credit_balance - case.parts.clawed_back
    assert owed.available_credit == before.available_credit
    is_owed_again = case.parts.reversed + case.parts.deficit
    assert sum(owed[:3]) == sum(before[:3]) + is_owed_again
    moved = {
        "cash": -case.amount,
        "credit": case.parts.clawed_back,
        "receivable": is_owed_again,
        "refunds_and_allowances": case.parts.absorbed,
    }
    kinds = balances.keys() | {kind for kind, amount in moved.items() if amount}
    assert await account_balances(customer.client) == {
        kind: balances.get(kind, 0) + moved.get(kind, 0) for kind in kinds
    }


@CASES
async def test_a_failed_refund_discards_all_of_it(customer: Customer, case: Case) -> None:
    payment = await case.state(customer)
    before = await customer.owed()
    balances = await account_balances(customer.client)
    left = await credit(customer.client, payment.usage_credit_id)
    refund = await create_refund(
        customer.client, payment.id, case.amount, credit_policy=case.policy
    )
    await fail_refund(customer.client, refund.id)
    assert await moves_of(customer, refund) == expected(case.pending, "discarded")
    after = await credit(customer.client, payment.usage_credit_id)
    assert (after.remaining_amount, after.held_amount) == (left.remaining_amount, 0)
    assert after.status == left.status
    assert await customer.owed() == before
    assert await account_balances(customer.client) == balances


@CASES
async def test_what_is_taken_back_is_an_adjustment_of_the_credit(
    customer: Customer, case: Case
) -> None:
    payment, refund = await begin(customer, case)
    await confirm_refund(customer.client, refund.id)
    rows = await adjustments_of(customer.client, payment.usage_credit_id)
    if sum(case.parts[:3]) == 0:
        assert rows == []
        return
    (adjustment,) = rows
    assert adjustment.adjustment_type == credit_pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_CLAWBACK_REFUND
    assert adjustment.direction == DECREASE
    assert adjustment.amount_adjusted == sum(case.parts[:3])
    assert adjustment.deficit_amount == case.parts.deficit
    assert adjustment.source_refund_id == refund.id
    assert adjustment.ledger_transaction_id == refund.ledger_transaction_id
    transaction = await ledger_transaction(customer.client, refund.ledger_transaction_id)
    for entry in transaction.entries:
        sources = sources_of(entry)
        if "credit_balance_adjustment" in sources:
            assert sources == {
                "usage_credit": payment.usage_credit_id,
                "credit_balance_adjustment": adjustment.id,
                "refund": refund.id,
            }
            assert entry.billing_period_id == (
                await customer.current_period_id() if "deficit" in moves([entry])[0][0] else ""
            )


async def test_of_a_voided_credit_nothing_is_left_to_take_back(customer: Customer) -> None:
    payment = await customer.pay(1000)
    await void_credit(customer.client, payment.usage_credit_id)
    given = await create_refund(customer.client, payment.id, 400)
    assert parts_of(given) == Parts(absorbed=400)
    charged = await create_refund(customer.client, payment.id, 300, credit_policy=REVERT_ALL)
    assert parts_of(charged) == Parts(deficit=300)
    for refund in (given, charged):
        await confirm_refund(customer.client, refund.id)
    assert await account_balances(customer.client) == {
        "cash": 300,
        "credit": 0,
        "breakage": -1000,
        "receivable": 300,
        "refunds_and_allowances": 400,
    }


async def test_what_a_failed_refund_frees_pays_from_then_on(customer: Customer) -> None:
    payment = await customer.pay(1000)
    refund = await create_refund(customer.client, payment.id, 1000)
    await customer.use(10, API_CALLS)
    await customer.bill()
    assert (await customer.owed()).invoiced == 20
    await fail_refund(customer.client, refund.id)
    await customer.use(100, API_CALLS)
    await customer.bill(APRIL + timedelta(days=31))
    after = await credit(customer.client, payment.usage_credit_id)
    assert (after.remaining_amount, after.held_amount) == (800, 0)
    assert (await customer.owed()).invoiced == 20
