"""The ledger as a file: which entries go into it, and what is told of each."""

from dataclasses import dataclass
from uuid import UUID

from billing.domain.ledger import LedgerEntry, LedgerSourceType
from billing.domain.time_ranges import TimeRange


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSelection:
    """Of all subscriptions if none is named; posted within ``span``.

    ``include_pending`` adds what is pending, by when it was recorded.
    """

    subscription_id: UUID | None = None
    span: TimeRange = TimeRange()  # noqa: RUF009  it never changes
    include_pending: bool = False


@dataclass(frozen=True, slots=True)
class ExportedEntry:
    """An entry, and the ledger transaction that it belongs to."""

    entry: LedgerEntry
    initiating_source_type: LedgerSourceType
    initiating_source_id: UUID
    transaction_description: str
