"""What a payment pays of its billing period at once, and what a refund takes back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from billing.domain import identifiers
from billing.domain.catalog import Component
from billing.domain.credit_consumption import Coverage, NewApplication
from billing.domain.credits import UsageCredit
from billing.domain.payments import (
    Payment,
    Refund,
    RefundCreditPolicy,
    RefundStatus,
    RefundTerms,
)


def settle(
    credit: UsageCredit,
    components: Sequence[Component],
    rated_minor: Mapping[UUID, int],
    prior: Iterable[Coverage],
    *,
    owed_minor: int,
) -> list[NewApplication]:
    """Let a credit pay what a period owes: usage in the order of its components, then charges.

    ``rated_minor`` is the usage by component, ``owed_minor`` all that the period owes now.
    """
    unpaid = dict(rated_minor)
    for coverage in prior:
        if coverage.component_id is not None:
            unpaid[coverage.component_id] -= coverage.amount_minor
    charges_minor = owed_minor - sum(unpaid.values())
    left_minor = min(credit.remaining_minor, max(0, owed_minor))
    demands = [(component, unpaid.get(component.id, 0)) for component in components]
    applications = []
    for component, wanted_minor in [*demands, (None, charges_minor)]:
        amount_minor = min(left_minor, wanted_minor)
        if amount_minor > 0:
            left_minor -= amount_minor
            applications.append(
                NewApplication(identifiers.new_id(), credit, component, amount_minor)
            )
    return applications


class Reversible(Protocol):
    """An application with what of it can be reversed, in minor units."""

    @property
    def reversible_minor(self) -> int: ...


R = TypeVar("R", bound=Reversible)


@dataclass(frozen=True, slots=True)
class Clawback(Generic[R]):
    """What a refund takes back, in minor units: unused value, settlements, and a deficit."""

    unused_minor: int
    reversals: Sequence[tuple[R, int]]
    deficit_minor: int

    @property
    def reversed_minor(self) -> int:
        """All that is reversed."""
        return sum(amount_minor for _, amount_minor in self.reversals)

    @property
    def total_minor(self) -> int:
        """All that is taken back, from whomever."""
        return self.unused_minor + self.reversed_minor + self.deficit_minor


def plan_clawback(
    policy: RefundCreditPolicy,
    amount_minor: int,
    *,
    remaining_minor: int,
    settlements: Iterable[R],
) -> Clawback[R]:
    """Decide what a refund takes back; ``settlements`` are the newest first."""
    if policy is RefundCreditPolicy.KEEP:
        return Clawback(0, (), 0)
    unused_minor = min(amount_minor, remaining_minor)
    if policy is RefundCreditPolicy.REVERT_UNUSED:
        return Clawback(unused_minor, (), 0)
    left_minor = amount_minor - unused_minor
    reversals = []
    for application in settlements:
        reversed_minor = min(left_minor, application.reversible_minor)
        if reversed_minor > 0:
            left_minor -= reversed_minor
            reversals.append((application, reversed_minor))
    return Clawback(unused_minor, tuple(reversals), left_minor)


def new_refund(
    refund_id: UUID,
    terms: RefundTerms,
    payment: Payment,
    clawback: Clawback[R],
    ledger_transaction_id: UUID,
    *,
    now: datetime,
) -> Refund:
    """Return a pending refund that takes back what was planned."""
    return Refund(
        id=refund_id,
        payment_id=payment.id,
        subscription_id=payment.subscription_id,
        amount_minor=terms.amount_minor,
        currency=terms.currency,
        reason=terms.reason,
        status=RefundStatus.PENDING,
        credit_policy=terms.credit_policy,
        clawed_back_minor=clawback.unused_minor,
        reversed_minor=clawback.reversed_minor,
        deficit_minor=clawback.deficit_minor,
        refund_processed_at=None,
        gateway_refund_id="",
        failure_reason="",
        notes=terms.notes,
        initiated_by_user_id=terms.initiated_by_user_id,
        ledger_transaction_id=ledger_transaction_id,
        created_at=now,
        updated_at=now,
    )
