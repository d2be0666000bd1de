"""Charges as they are kept: the records of invoice lines."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import ChargeType


@dataclass(frozen=True, slots=True)
class KeptCharge:
    """One line of an invoice, or of what a recalculation changes of it.

    ``unit_price`` and ``amount_minor`` are in minor units; ``amount_minor`` is negative where the
    line is to the customer's advantage.
    """

    id: UUID
    subscription_id: UUID
    billing_period_id: UUID
    billing_run_id: UUID | None
    recalculation_id: UUID | None
    calculation_run_id: UUID
    charge_type: ChargeType
    component_id: UUID | None
    description: str
    quantity: Decimal
    unit_price: Decimal
    amount_minor: int
    currency: str
    created_at: datetime

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.CHARGE, self.id)
