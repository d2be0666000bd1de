"""Which entries of the ledger are asked for."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from uuid import UUID

from billing.domain import identifiers
from billing.domain.ledger import LedgerEntryType


class LedgerEntryStatusFilter(StrEnum):
    """What became of an entry: pending is neither posted nor discarded."""

    PENDING = "pending"
    POSTED = "posted"
    DISCARDED = "discarded"


LEDGER_ENTRY_SOURCES: Final = {
    identifiers.USAGE_EVENT: "source_usage_event_id",
    identifiers.CHARGE: "source_charge_id",
    identifiers.USAGE_CREDIT: "source_usage_credit_id",
    identifiers.CREDIT_APPLICATION: "source_credit_application_id",
    identifiers.CREDIT_BALANCE_ADJUSTMENT: "source_credit_balance_adjustment_id",
    identifiers.CALCULATION: "source_billing_period_calculation_id",
    identifiers.PAYMENT: "source_payment_id",
    identifiers.REFUND: "source_refund_id",
    identifiers.WRITE_OFF: "source_write_off_id",
}
"""The prefix of the ids of what may cause an entry, and the entry's field that holds them."""


@dataclass(frozen=True, slots=True)
class LedgerEntrySource:
    """What caused entries; ``field`` is one of ``LEDGER_ENTRY_SOURCES``."""

    field: str
    id: UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntryFilter:
    """What all entries of a list have in common; None is anything."""

    billing_period_id: UUID | None = None
    entry_type: LedgerEntryType | None = None
    status: LedgerEntryStatusFilter | None = None
    component_id: UUID | None = None
    source: LedgerEntrySource | None = None
    calculation_run_id: UUID | None = None
