"""Proofs that figures add up, and what is raised where the books contradict themselves."""

from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID


class FiguresContradict(Exception):
    """Figures that must be equal are not: an internal contradiction, told with all of them."""

    def __init__(self, what: str, **figures: object) -> None:
        told = ", ".join(f"{name} {figure}" for name, figure in figures.items())
        super().__init__(f"{what} do not add up: {told}")
        self.figures = figures


def require_equal(what: str, **figures: int | Decimal | None) -> None:
    """Raise FiguresContradict unless all figures are the same."""
    if len(set(figures.values())) > 1:
        raise FiguresContradict(what, **figures)


class ExplainedEntry(NamedTuple):
    """A posted entry that an explanation rests on; negative minor units are owed."""

    id: UUID
    ledger_transaction_id: UUID
    amount_minor: int
    posted_at: datetime
