"""Why a line about credits is what it is: what they pay, could not give back, or carry on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from billing.domain.billing import ChargeType
from billing.domain.charges import KeptCharge
from billing.domain.credits import CreditApplicationKind, UsageCreditType
from billing.domain.proofs import ExplainedEntry, require_equal
from billing.domain.recalculations import Recalculation


class ExplainedApplication(NamedTuple):
    """One use of a credit, in minor units, as one execution finds it.

    ``applied_minor`` and ``reversed_minor`` are by that execution (a billing run: up to it),
    ``reversed_since_minor`` by later ones.
    """

    id: UUID
    kind: CreditApplicationKind
    component_id: UUID | None
    usage_from: datetime | None
    usage_until: datetime | None
    applied_minor: int
    reversed_minor: int
    reversed_since_minor: int
    applied_at: datetime
    ledger_transaction_id: UUID


@dataclass(frozen=True, slots=True)
class CreditUse:
    """What one credit pays: sums over all its applications, and the first few of them."""

    usage_credit_id: UUID
    credit_type: UsageCreditType
    source_reference_id: str
    expires_at: datetime | None
    applied_minor: int
    reversed_minor: int
    reversed_since_minor: int
    application_count: int
    applications: tuple[ExplainedApplication, ...]

    def __post_init__(self) -> None:
        """Raise FiguresContradict unless all applications, where they are here, add up."""
        if len(self.applications) < self.application_count:
            return
        for name in ("applied_minor", "reversed_minor", "reversed_since_minor"):
            require_equal(
                f"applications ({name})",
                credit=getattr(self, name),
                applications=sum(getattr(a, name) for a in self.applications),
            )

    @property
    def paid_minor(self) -> int:
        """What it pays; of a recalculation, what it pays more."""
        return self.applied_minor - self.reversed_minor


@dataclass(frozen=True, slots=True)
class CreditExplanation:
    """What credits pay of the other lines, by credit."""

    credit_uses: tuple[CreditUse, ...]


class ExplainedDeficit(NamedTuple):
    """What one adjustment could not take from its credit, so that it is owed; minor units."""

    usage_credit_id: UUID
    credit_balance_adjustment_id: UUID
    refund_id: UUID | None
    adjusted_minor: int
    reason: str
    entry: ExplainedEntry

    @property
    def deficit_minor(self) -> int:
        """What is owed instead."""
        return -self.entry.amount_minor


@dataclass(frozen=True, slots=True)
class DeficitExplanation:
    """What could not be taken back of credits, in the order it was posted."""

    deficits: tuple[ExplainedDeficit, ...]


class ExplainedSurplus(NamedTuple):
    """A credit of type surplus, with the entry that made it."""

    usage_credit_id: UUID
    entry: ExplainedEntry


@dataclass(frozen=True, slots=True)
class CarriedExplanation:
    """What the other lines of a period are below zero, before and after an execution.

    ``paid_before_minor`` is what payments had paid before a billing run: it became surplus too.
    """

    lines_before_minor: int
    lines_after_minor: int
    surplus: ExplainedSurplus | None
    paid_before_minor: int
    recalculation: Recalculation | None

    @property
    def carried_before_minor(self) -> int:
        """What was below zero before."""
        return max(0, -self.lines_before_minor)

    @property
    def carried_after_minor(self) -> int:
        """What is below zero now."""
        return max(0, -self.lines_after_minor)

    @property
    def surplus_minor(self) -> int:
        """What became a credit."""
        return self.surplus.entry.amount_minor if self.surplus else 0


def explain_credit(charge: KeptCharge, credit_uses: Iterable[CreditUse]) -> CreditExplanation:
    """Return the explanation of what credits pay; raises FiguresContradict."""
    explained = CreditExplanation(tuple(credit_uses))
    require_equal(
        f"credits of {charge.typeid}",
        line=-charge.amount_minor,
        applications=sum(use.paid_minor for use in explained.credit_uses),
    )
    return explained


def explain_deficit(charge: KeptCharge, deficits: Sequence[ExplainedDeficit]) -> DeficitExplanation:
    """Return the explanation of what could not be taken back; raises FiguresContradict.

    ``deficits`` are all of the period, in order: those after the last invoice of a cancelled
    subscription are on none, so the line has the first so many.
    """
    taken: list[ExplainedDeficit] = []
    total_minor = 0
    for deficit in deficits:
        if total_minor >= charge.amount_minor:
            break
        taken.append(deficit)
        total_minor += deficit.deficit_minor
    require_equal(f"deficits of {charge.typeid}", line=charge.amount_minor, deficits=total_minor)
    return DeficitExplanation(tuple(taken))


def explain_carried(
    charge: KeptCharge,
    lines: Sequence[KeptCharge],
    surplus: ExplainedSurplus | None,
    *,
    paid_before_minor: int,
    recalculation: Recalculation | None,
) -> CarriedExplanation:
    """Return the explanation of what is carried to credit; raises FiguresContradict.

    ``lines`` are all of the period up to those made with the charge.
    """
    others = [line for line in lines if line.charge_type is not ChargeType.CARRIED]
    made_with = [x for x in others if x.calculation_run_id == charge.calculation_run_id]
    after_minor = sum(line.amount_minor for line in others)
    explained = CarriedExplanation(
        lines_before_minor=after_minor - sum(line.amount_minor for line in made_with),
        lines_after_minor=after_minor,
        surplus=surplus,
        paid_before_minor=paid_before_minor,
        recalculation=recalculation,
    )
    require_equal(
        f"lines beside {charge.typeid}",
        line=charge.amount_minor,
        others=explained.carried_after_minor - explained.carried_before_minor,
    )
    expected_minor = (
        charge.amount_minor + paid_before_minor
        if recalculation is None
        else recalculation.surplus_minor
    )
    require_equal(
        f"surplus of {charge.typeid}", credit=explained.surplus_minor, expected=expected_minor
    )
    return explained
