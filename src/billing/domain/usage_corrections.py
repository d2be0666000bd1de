"""Corrections of stored usage events: amended, or voided. The events themselves never change."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from billing.domain import identifiers
from billing.domain.ledger import LedgerEntryStatus


class UsageEventCorrectionType(StrEnum):
    """What is said about an event: another quantity, or that it never was."""

    AMENDMENT = "amendment"
    VOID = "void"


@dataclass(frozen=True, slots=True)
class UsageEventCorrection:
    """A correction of one event, with what it changes of the cost, in minor units.

    In a billed period it is pending until a recalculation takes it in (``taken_in_at``).
    """

    id: UUID
    usage_event_id: UUID
    subscription_id: UUID
    billing_period_id: UUID
    correction_type: UsageEventCorrectionType
    quantity_before: Decimal
    quantity_after: Decimal
    cost_change_minor: int
    currency: str
    reason: str
    corrected_by_user_id: str
    status: LedgerEntryStatus
    taken_in_at: datetime | None
    ledger_transaction_id: UUID
    corrected_at: datetime

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.USAGE_EVENT_CORRECTION, self.id)
