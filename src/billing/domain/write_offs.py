"""Receivables that were given up."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.domain import identifiers


@dataclass(frozen=True, slots=True)
class WriteOff:
    """What of a billing period's receivable was given up, and what of that is owed again."""

    id: UUID
    subscription_id: UUID
    billing_period_id: UUID
    amount_minor: int
    recovered_minor: int
    currency: str
    reason: str
    written_off_by_user_id: str
    ledger_transaction_id: UUID
    created_at: datetime
    updated_at: datetime

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.WRITE_OFF, self.id)

    @property
    def left_minor(self) -> int:
        """What is still given up."""
        return self.amount_minor - self.recovered_minor


def plan_recovery(
    write_offs: Iterable[WriteOff], amount_minor: int
) -> Iterator[tuple[WriteOff, int]]:
    """Yield which write-offs are recovered, in their order, and how much of each."""
    for write_off in write_offs:
        recovered_minor = min(write_off.left_minor, amount_minor)
        if recovered_minor > 0:
            amount_minor -= recovered_minor
            yield write_off, recovered_minor
