"""What the reference keeps of a billing period: usage, calculations, invoices, recalculations."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from tests.factories.reference_books import Posting
from tests.factories.reference_credits import Cost


@dataclass
class UsageEvent:
    """One stored event; ``quantity`` is what counts of it after its corrections."""

    number: int
    component: int
    at: datetime
    quantity: Decimal
    period: int
    is_voided: bool = False


@dataclass
class Calculation:
    """What one component cost; ``kind`` and ``status`` as the contract writes them."""

    kind: str
    status: str
    component: int
    quantity: Decimal
    raw: int
    credits: int

    @property
    def figures(self) -> tuple[int, Decimal, int, int]:
        """What it says."""
        return self.component, self.quantity, self.raw, self.credits


@dataclass
class Invoice:
    """An invoice with the amounts of its lines; only additional ones are ever voided."""

    amount: int
    lines: dict[str, int]
    credited: int = 0
    is_void: bool = False


class Document(NamedTuple):
    """What a recalculation asks for, and what that adds to what is invoiced."""

    kind: str
    amount: int


class Changes(NamedTuple):
    """What one recalculation changed: new less old."""

    raw: int
    credits: int
    recovered: int
    released: int
    surplus: int
    documents: tuple[Document, ...]

    @property
    def net(self) -> int:
        """What is owed more."""
        return self.raw - self.credits


@dataclass
class Recalculation:
    """One recalculation, and whether the invoicing service knows."""

    changes: Changes
    is_delivered: bool


class Hold(NamedTuple):
    """What an estimate holds of a credit."""

    credit: int
    amount: int
    posting: Posting


class Forecast(NamedTuple):
    """What billing would come to: the invoice, what is still owed or too much, what credits pay."""

    total: int
    receivable: int
    surplus: int
    held: int


@dataclass
class Estimate:
    """What an estimate holds until something overtakes it."""

    holds: list[Hold]
    calculations: list[Calculation]


@dataclass
class Period:
    """One billing period with the costs counted in it; ``invoice`` holds the amounts of lines.

    ``pending`` are the costs that wait for a recalculation, with their postings; ``total`` is what
    was invoiced of it in all.
    """

    number: int
    start: datetime
    end: datetime
    costs: list[Cost] = field(default_factory=list)
    quantities: dict[int, Decimal] = field(default_factory=dict)
    pending: list[tuple[Cost, Posting]] = field(default_factory=list)
    pending_quantities: dict[int, Decimal] = field(default_factory=dict)
    charges: int = 0
    total: int = 0
    billed_at: datetime | None = None
    invoiced_at: datetime | None = None
    invoice: dict[str, int] = field(default_factory=dict)
    invoices: list[Invoice] = field(default_factory=list)
    calculations: list[Calculation] = field(default_factory=list)
    recalculations: list[Recalculation] = field(default_factory=list)

    def quantity(self, component: int) -> Decimal:
        """How much of a component is counted."""
        return self.quantities.get(component, Decimal(0))

    def pending_quantity(self, component: int) -> Decimal:
        """How much of a component a recalculation would add."""
        return self.pending_quantities.get(component, Decimal(0))

    def active_figures(self) -> list[tuple[int, Decimal, int, int]]:
        """What the calculations say that count, by component."""
        return sorted(each.figures for each in self.calculations if each.status == "active")
