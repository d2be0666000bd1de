"""Why a balance moved: the entries posted in between, by type and cause, and the proof of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from billing.domain.ledger import Balance, LedgerEntryType, LedgerSourceType
from billing.domain.proofs import require_equal


class ExplainedTransaction(NamedTuple):
    """What one ledger transaction did with entries of one type, in minor units."""

    ledger_transaction_id: UUID
    initiating_source_id: UUID
    description: str
    entry_count: int
    amount_minor: int
    posted_at: datetime


@dataclass(frozen=True, slots=True)
class BalanceMovement:
    """The entries of one type and kind of cause, in minor units, with their first transactions.

    ``amount_minor`` is from the subscription's side: negative is to its disadvantage.
    """

    entry_type: LedgerEntryType
    source_type: LedgerSourceType
    entry_count: int
    transaction_count: int
    amount_minor: int
    outstanding_change_minor: int
    credit_balance_change_minor: int
    transactions: tuple[ExplainedTransaction, ...]

    def __post_init__(self) -> None:
        """Raise FiguresContradict unless all transactions, where they are here, add up."""
        if len(self.transactions) == self.transaction_count:
            require_equal(
                f"transactions of {self.entry_type}",
                amount=self.amount_minor,
                transactions=sum(each.amount_minor for each in self.transactions),
            )

    @property
    def net_change_minor(self) -> int:
        """What they do to the balance."""
        return self.credit_balance_change_minor - self.outstanding_change_minor


@dataclass(frozen=True, slots=True)
class BalanceExplanation:
    """How a subscription came from one balance to another; raises FiguresContradict."""

    opening: Balance
    movements: tuple[BalanceMovement, ...]
    closing: Balance

    def __post_init__(self) -> None:
        opening, closing = self.opening, self.closing
        self._prove(
            "outstanding",
            opening.outstanding_minor,
            closing.outstanding_minor,
            [movement.outstanding_change_minor for movement in self.movements],
        )
        self._prove(
            "credit balance",
            opening.credit_balance_minor,
            closing.credit_balance_minor,
            [movement.credit_balance_change_minor for movement in self.movements],
        )
        self._prove(
            "net",
            opening.net_minor,
            closing.net_minor,
            [movement.net_change_minor for movement in self.movements],
        )

    @staticmethod
    def _prove(what: str, opening: int, closing: int, changes: Sequence[int]) -> None:
        require_equal(f"movements of {what}", movements=sum(changes), difference=closing - opening)
