"""The double-entry ledger: accounts, entry types and the rule that joins them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple
from uuid import UUID


class LedgerAccountKind(StrEnum):
    """``receivable`` is one a subscription; the others are one a tenant and currency."""

    RECEIVABLE = "receivable"
    USAGE_REVENUE = "usage_revenue"
    SUBSCRIPTION_REVENUE = "subscription_revenue"


class LedgerEntryType(StrEnum):
    """Why an entry exists."""

    USAGE_COST = "usage_cost"
    CHARGE_BILLED = "charge_billed"


class LedgerEntryStatus(StrEnum):
    """``pending`` may still be discarded, ``posted`` never changes."""

    PENDING = "pending"
    POSTED = "posted"


class LedgerSourceType(StrEnum):
    """What a ledger transaction was initiated by."""

    USAGE_INGESTION = "usage_ingestion"
    BILLING_RUN = "billing_run"


class PostingRule(NamedTuple):
    """The kinds of account that a negative amount debits and credits."""

    debit: LedgerAccountKind
    credit: LedgerAccountKind


POSTING_RULES: Final = MappingProxyType(
    {
        LedgerEntryType.USAGE_COST: PostingRule(
            LedgerAccountKind.RECEIVABLE, LedgerAccountKind.USAGE_REVENUE
        ),
        LedgerEntryType.CHARGE_BILLED: PostingRule(
            LedgerAccountKind.RECEIVABLE, LedgerAccountKind.SUBSCRIPTION_REVENUE
        ),
    }
)
"""The database holds the same rules: a trigger refuses an entry between other accounts."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One movement of value. ``amount_minor`` is from the subscription's side: negative is owed."""

    id: UUID
    ledger_transaction_id: UUID
    subscription_id: UUID
    entry_type: LedgerEntryType
    status: LedgerEntryStatus
    amount_minor: int
    currency: str
    debit_account_id: UUID
    debit_account_kind: LedgerAccountKind
    credit_account_id: UUID
    credit_account_kind: LedgerAccountKind
    source_usage_event_id: UUID | None
    source_charge_id: UUID | None
    billing_period_id: UUID | None
    usage_meter_id: UUID | None
    calculation_run_id: UUID | None
    applied_to_ledger_entry_id: UUID | None
    description: str
    entry_timestamp: datetime
    posted_at: datetime | None
    discarded_at: datetime | None


@dataclass(frozen=True, slots=True)
class LedgerTransaction:
    """One business operation; groups its entries."""

    id: UUID
    subscription_id: UUID
    initiating_source_type: LedgerSourceType
    initiating_source_id: UUID
    description: str
    created_at: datetime
    entries: tuple[LedgerEntry, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """What a subscription owes, in minor units of its currency."""

    subscription_id: UUID
    currency: str
    unbilled_minor: int
    billed_not_invoiced_minor: int
    invoiced_minor: int
    as_of: datetime

    @property
    def outstanding_minor(self) -> int:
        """All that is owed."""
        return self.unbilled_minor + self.billed_not_invoiced_minor + self.invoiced_minor

    @property
    def net_minor(self) -> int:
        """The balance from the subscription's side: negative is owed."""
        return -self.outstanding_minor


@dataclass(frozen=True, slots=True)
class TrialBalanceLine:
    """Posted debits and credits of one kind of account in one currency, in minor units."""

    account_kind: LedgerAccountKind
    currency: str
    debit_minor: int
    credit_minor: int
