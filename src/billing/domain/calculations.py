"""Calculations as they are kept, and estimates."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import CalculationStatus, CalculationType, Charge


@dataclass(frozen=True, slots=True)
class KeptCalculation:
    """What one component costs in one period, by one execution; positive minor units are owed."""

    id: UUID
    calculation_run_id: UUID
    billing_run_id: UUID | None
    recalculation_id: UUID | None
    subscription_id: UUID
    billing_period_id: UUID
    component_id: UUID
    usage_meter_id: UUID
    calculation_type: CalculationType
    status: CalculationStatus
    total_quantity: Decimal
    billable_quantity: Decimal
    unit_price: Decimal
    total_raw_usage_minor: int
    credits_applied_minor: int
    currency: str
    superseded_by_id: UUID | None
    source_invoice_id: str
    source_credit_note_id: str
    notes: str
    calculated_at: datetime

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.CALCULATION, self.id)

    @property
    def net_billed_minor(self) -> int:
        """Raw usage less credits."""
        return self.total_raw_usage_minor - self.credits_applied_minor


@dataclass(frozen=True, slots=True)
class Estimate:
    """What an open period would cost if it were billed now, in minor units.

    ``held_minor`` is what it holds of credits.
    """

    calculation_run_id: UUID
    subscription_id: UUID
    billing_period_id: UUID
    currency: str
    charges: tuple[Charge, ...]
    total_minor: int
    receivable_minor: int
    surplus_minor: int
    held_minor: int
    calculations: tuple[KeptCalculation, ...]
    estimated_at: datetime
