"""What a payment pays of its period at once, and what a refund takes back."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.credit_consumption import Coverage
from billing.domain.credits import CreditApplicationKind, UsageCredit, UsageCreditType
from billing.domain.identifiers import new_id
from billing.domain.payments import (
    Payment,
    PaymentPurpose,
    PaymentStatus,
    RefundCreditPolicy,
    RefundStatus,
    RefundTerms,
)
from billing.domain.settlement import new_refund, plan_clawback, settle
from tests.factories.domain import BEGIN, a_component
from tests.factories.domain_credits import a_credit, day, paid_by

CALLS, TOKENS = a_component(name="calls"), a_component(name="tokens")
RUN, REALTIME, SETTLEMENT = CreditApplicationKind
REVERT_UNUSED, REVERT_ALL, KEEP = RefundCreditPolicy
NAMES = {CALLS.id: "calls", TOKENS.id: "tokens"}


def a_payments_credit(amount: int) -> UsageCredit:
    return a_credit(amount, credit_type=UsageCreditType.PAYMENT_PERIOD_SETTLEMENT)


def settled(
    amount: int, *, calls: int = 0, tokens: int = 0, owed: int, prior: tuple[Coverage, ...] = ()
) -> list[tuple[str, int]]:
    """What a payment pays of usage and of all that is owed."""
    credit = a_payments_credit(amount)
    usage = {CALLS.id: calls, TOKENS.id: tokens}
    rated = {component_id: minor for component_id, minor in usage.items() if minor}
    applications = settle(credit, [TOKENS, CALLS], rated, prior, owed_minor=owed)
    assert all(application.credit is credit for application in applications)
    assert all(a.usage_from is None and a.usage_until is None for a in applications)
    told = paid_by(applications, NAMES | {credit.id: "payment"})
    return [(component, minor) for _, component, minor in told]


class TestSettle:
    def test_usage_in_the_order_of_the_plan_then_charges(self) -> None:
        assert settled(1000, calls=50, tokens=60, owed=110 + 30) == [
            ("tokens", 60),
            ("calls", 50),
            ("charges", 30),
        ]

    @pytest.mark.parametrize(
        ("amount", "paid"),
        [
            (1, [("tokens", 1)]),
            (60, [("tokens", 60)]),
            (100, [("tokens", 60), ("calls", 40)]),
            (130, [("tokens", 60), ("calls", 50), ("charges", 20)]),
            (140, [("tokens", 60), ("calls", 50), ("charges", 30)]),
        ],
    )
    def test_what_the_payment_does_not_reach_stays_owed(
        self, amount: int, paid: list[tuple[str, int]]
    ) -> None:
        assert settled(amount, calls=50, tokens=60, owed=140) == paid

    def test_what_was_paid_of_usage_and_charges_is_not_paid_again(self) -> None:
        prior = (
            Coverage(RUN, TOKENS.id, BEGIN, day(10), 20),
            Coverage(REALTIME, TOKENS.id, None, None, 40),
            Coverage(SETTLEMENT, CALLS.id, None, None, 15),
            Coverage(SETTLEMENT, None, None, None, 25),
        )
        assert settled(1000, calls=50, tokens=60, owed=140 - 100, prior=prior) == [
            ("calls", 35),
            ("charges", 5),
        ]

    @pytest.mark.parametrize("owed", [0, -10])
    def test_a_period_that_owes_nothing_takes_nothing(self, owed: int) -> None:
        assert settled(1000, owed=owed) == []

    def test_usage_is_paid_up_to_what_is_owed_in_all(self) -> None:
        """A negative charge makes less owed than the usage."""
        assert settled(1000, calls=50, tokens=60, owed=80) == [("tokens", 60), ("calls", 20)]

    @given(
        amount=st.integers(1, 400),
        usage=st.tuples(st.integers(0, 100), st.integers(0, 100)),
        covered=st.tuples(st.integers(0, 100), st.integers(0, 100), st.integers(0, 100)),
        charges=st.integers(0, 100),
    )
    def test_it_pays_all_it_can_and_nothing_else(
        self,
        amount: int,
        usage: tuple[int, int],
        covered: tuple[int, int, int],
        charges: int,
    ) -> None:
        calls, tokens = usage
        of_calls, of_tokens = min(covered[0], calls), min(covered[1], tokens)
        of_charges = min(covered[2], charges)
        prior = (
            Coverage(RUN, CALLS.id, None, None, of_calls) if of_calls else None,
            Coverage(RUN, TOKENS.id, None, None, of_tokens) if of_tokens else None,
            Coverage(RUN, None, None, None, of_charges) if of_charges else None,
        )
        owed = calls + tokens + charges - of_calls - of_tokens - of_charges
        paid = settled(
            amount,
            calls=calls,
            tokens=tokens,
            owed=owed,
            prior=tuple(each for each in prior if each),
        )
        unpaid = {
            "calls": calls - of_calls,
            "tokens": tokens - of_tokens,
            "charges": charges - of_charges,
        }
        assert sum(minor for _, minor in paid) == min(amount, owed)
        assert len({demand for demand, _ in paid}) == len(paid)
        assert all(0 < minor <= unpaid[demand] for demand, minor in paid)


@dataclass(frozen=True)
class Settled:
    """A settlement that can be reversed."""

    name: str
    reversible_minor: int


SETTLEMENTS = [Settled("newest", 30), Settled("older", 0), Settled("oldest", 50)]


class TestClawback:
    @pytest.mark.parametrize("policy", RefundCreditPolicy)
    def test_what_is_unused_is_taken_first(self, policy: RefundCreditPolicy) -> None:
        plan = plan_clawback(policy, 70, remaining_minor=100, settlements=SETTLEMENTS)
        assert plan.unused_minor == (0 if policy is KEEP else 70)
        assert (list(plan.reversals), plan.deficit_minor) == ([], 0)
        assert plan.total_minor == plan.unused_minor

    def test_by_default_what_is_used_stays_used(self) -> None:
        assert RefundTerms(new_id(), 1, "USD").credit_policy is REVERT_UNUSED
        plan = plan_clawback(REVERT_UNUSED, 70, remaining_minor=40, settlements=SETTLEMENTS)
        assert (plan.unused_minor, list(plan.reversals), plan.deficit_minor) == (40, [], 0)

    @pytest.mark.parametrize(
        ("amount", "reversals", "deficit"),
        [
            (10, [], 0),
            (30, [("newest", 20)], 0),
            (40, [("newest", 30)], 0),
            (90, [("newest", 30), ("oldest", 50)], 0),
            (100, [("newest", 30), ("oldest", 50)], 10),
        ],
    )
    def test_settlements_are_reversed_newest_first_and_the_rest_is_a_deficit(
        self, amount: int, reversals: list[tuple[str, int]], deficit: int
    ) -> None:
        plan = plan_clawback(REVERT_ALL, amount, remaining_minor=10, settlements=SETTLEMENTS)
        assert plan.unused_minor == 10
        assert [(settled.name, minor) for settled, minor in plan.reversals] == reversals
        assert plan.reversed_minor == sum(minor for _, minor in reversals)
        assert plan.deficit_minor == deficit

    @given(
        st.sampled_from(RefundCreditPolicy),
        st.integers(1, 300),
        st.integers(0, 300),
        st.lists(st.integers(0, 100).map(lambda minor: Settled("one", minor)), max_size=5),
    )
    def test_it_takes_no_more_than_there_is_nor_than_the_refund(
        self, policy: RefundCreditPolicy, amount: int, remaining: int, settled: list[Settled]
    ) -> None:
        plan = plan_clawback(policy, amount, remaining_minor=remaining, settlements=settled)
        assert 0 <= plan.unused_minor <= remaining
        assert all(0 < minor <= each.reversible_minor for each, minor in plan.reversals)
        parts = (plan.unused_minor, plan.reversed_minor, plan.deficit_minor)
        assert plan.total_minor == sum(parts) <= amount
        if policy is REVERT_ALL:
            assert plan.total_minor == amount
            reversible = sum(each.reversible_minor for each in settled)
            assert plan.deficit_minor == max(0, amount - remaining - reversible)
        else:
            assert plan.deficit_minor == plan.reversed_minor == 0


def a_payment() -> Payment:
    return Payment(
        id=new_id(),
        subscription_id=new_id(),
        purpose=PaymentPurpose.TOP_UP,
        amount_minor=500,
        currency="USD",
        status=PaymentStatus.SUCCEEDED,
        billing_period_id=None,
        invoice_id="",
        payment_method_details={},
        processor_transaction_id="charge-1",
        processed_at=BEGIN,
        failure_reason="",
        usage_credit_id=new_id(),
        settled_minor=0,
        refunded_minor=0,
        metadata={},
        created_at=BEGIN,
        updated_at=BEGIN,
    )


def test_a_new_refund_is_pending_with_the_parts_of_its_plan() -> None:
    payment, refund_id, transaction_id = a_payment(), new_id(), new_id()
    terms = RefundTerms(
        payment.id, 100, "USD", REVERT_ALL, reason="broken", notes="n", initiated_by_user_id="ann"
    )
    plan = plan_clawback(REVERT_ALL, 100, remaining_minor=10, settlements=SETTLEMENTS)
    refund = new_refund(refund_id, terms, payment, plan, transaction_id, now=day(3))
    assert (refund.id, refund.payment_id) == (refund_id, payment.id)
    assert refund.subscription_id == payment.subscription_id
    assert (refund.amount_minor, refund.currency, refund.credit_policy) == (100, "USD", REVERT_ALL)
    assert (refund.status, refund.gateway_refund_id) == (RefundStatus.PENDING, "")
    assert (refund.clawed_back_minor, refund.reversed_minor, refund.deficit_minor) == (10, 80, 10)
    assert refund.absorbed_minor == 0
    assert (refund.reason, refund.notes, refund.initiated_by_user_id) == ("broken", "n", "ann")
    assert refund.ledger_transaction_id == transaction_id
    assert refund.created_at == refund.updated_at == day(3)
    assert refund.refund_processed_at is None


@pytest.mark.parametrize(("policy", "absorbed"), [(KEEP, 100), (REVERT_UNUSED, 90)])
def test_what_is_not_taken_back_is_absorbed(policy: RefundCreditPolicy, absorbed: int) -> None:
    plan = plan_clawback(policy, 100, remaining_minor=10, settlements=SETTLEMENTS)
    terms = RefundTerms(new_id(), 100, "USD", policy)
    refund = new_refund(new_id(), terms, a_payment(), plan, new_id(), now=BEGIN)
    assert refund.absorbed_minor == absorbed
