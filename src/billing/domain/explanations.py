"""Why a charge is what it is: a tree of figures in which every level adds up to the one above.

Each part proves its own sums when it is made: what contradicts itself is never told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from billing.domain.catalog import PlanVersion
from billing.domain.charges import KeptCharge
from billing.domain.credit_explanations import (
    CarriedExplanation,
    CreditExplanation,
    DeficitExplanation,
)
from billing.domain.pages import Page
from billing.domain.periods import BillingPeriod
from billing.domain.proofs import ExplainedEntry, FiguresContradict, require_equal
from billing.domain.recalculations import Recalculation, RecalculationDocument
from billing.domain.usage_explanations import UsageChangeExplanation, UsageExplanation


@dataclass(frozen=True, slots=True)
class RecurringExplanation:
    """The price of a plan version for one period, with the entry that posts it."""

    version: PlanVersion
    entry: ExplainedEntry


Explanation = (
    UsageExplanation
    | UsageChangeExplanation
    | RecurringExplanation
    | CreditExplanation
    | DeficitExplanation
    | CarriedExplanation
)


@dataclass(frozen=True, slots=True)
class InvoicedPeriod:
    """A billed period with its invoice and all that was charged for it, in the order it was made.

    ``total_minor`` is what it is invoiced for in all; ``recalculations`` are in order too.
    """

    period: BillingPeriod
    invoice_id: str
    total_minor: int
    lines: tuple[KeptCharge, ...]
    recalculations: tuple[Recalculation, ...]

    def __post_init__(self) -> None:
        """Raise FiguresContradict unless the lines come to the total."""
        require_equal(
            f"lines of {self.period.typeid}",
            total=self.total_minor,
            lines=sum(line.amount_minor for line in self.lines),
        )

    def recalculation_of(self, charge: KeptCharge) -> Recalculation | None:
        """Return the recalculation that made a line, None for a billing run's."""
        if charge.recalculation_id is None:
            return None
        for recalculation in self.recalculations:
            if recalculation.id == charge.recalculation_id:
                return recalculation
        raise FiguresContradict("recalculations", line=charge.typeid, recalculation=None)

    def execution_number(self, charge: KeptCharge) -> int:
        """Return 0 for a billing run's line, and the recalculation's number from 1 for others."""
        recalculation = self.recalculation_of(charge)
        return 0 if recalculation is None else self.recalculations.index(recalculation) + 1

    def lines_up_to(self, charge: KeptCharge) -> list[KeptCharge]:
        """Return the lines made with a charge, and by executions before it."""
        number = self.execution_number(charge)
        return [line for line in self.lines if self.execution_number(line) <= number]


@dataclass(frozen=True, slots=True)
class ChargeExplanation:
    """A line with all that it consists of; ``lines_minor`` is of all that were made with it."""

    charge: KeptCharge
    invoiced: InvoicedPeriod
    lines_minor: int
    documents: tuple[RecalculationDocument, ...]
    explanation: Explanation

    @property
    def usage_page(self) -> Page[Any]:
        """The page of usage that it tells; an empty last one for lines without usage."""
        if isinstance(self.explanation, UsageExplanation):
            return self.explanation.events
        if isinstance(self.explanation, UsageChangeExplanation):
            return self.explanation.taken_in
        return Page((), None)


def explain_charge(
    charge: KeptCharge, invoiced: InvoicedPeriod, explanation: Explanation
) -> ChargeExplanation:
    """Put an explanation together; raises FiguresContradict.

    What a recalculation asks of the invoicing service comes to the sum of its lines.
    """
    made_with = [x for x in invoiced.lines if x.calculation_run_id == charge.calculation_run_id]
    lines_minor = sum(line.amount_minor for line in made_with)
    recalculation = invoiced.recalculation_of(charge)
    documents = recalculation.documents if recalculation else ()
    if recalculation is not None:
        require_equal(
            f"documents of {recalculation.typeid}",
            lines=lines_minor,
            documents=sum(document.amount_minor for document in documents),
        )
    return ChargeExplanation(charge, invoiced, lines_minor, documents, explanation)


def explain_recurring(
    charge: KeptCharge, version: PlanVersion, entries: Sequence[ExplainedEntry]
) -> RecurringExplanation:
    """Return the explanation of a plan's price; raises FiguresContradict."""
    require_equal(
        f"prices of {charge.typeid}",
        line=charge.amount_minor,
        plan=version.base_price_minor,
        entries=sum(-entry.amount_minor for entry in entries),
    )
    (entry,) = entries
    return RecurringExplanation(version, entry)
