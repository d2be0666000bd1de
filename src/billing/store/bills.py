"""What billing a period leaves behind: charges and calculations."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from billing.domain.billing import (
    Calculation,
    CalculationStatus,
    CalculationType,
    Charge,
    PeriodBill,
)
from billing.store.database import Transaction
from billing.store.statements import load_query

_INSERT_CHARGES = load_query("insert_charges")
_INSERT_CALCULATIONS = load_query("insert_calculations")


class BillOrigin(NamedTuple):
    """What makes charges and calculations: a billing run, an estimate, or a recalculation."""

    calculation_type: CalculationType
    billing_run_id: UUID | None = None
    recalculation_id: UUID | None = None
    notes: str = ""

    @property
    def status(self) -> CalculationStatus:
        """The status that its calculations begin with."""
        if self.calculation_type is CalculationType.INTERIM_ESTIMATE:
            return CalculationStatus.PENDING_CONFIRMATION
        return CalculationStatus.ACTIVE


class CalculatedPeriod(NamedTuple):
    """The calculations that one execution made of a period."""

    calculation_run_id: UUID
    subscription_id: UUID
    billing_period_id: UUID
    currency: str
    calculations: Sequence[Calculation]


class ChargedPeriod(NamedTuple):
    """The charges that one execution made of a period."""

    calculation_run_id: UUID
    subscription_id: UUID
    billing_period_id: UUID
    currency: str
    charges: Sequence[Charge]


class BillStore:
    """Writes ``charges`` and ``calculations``."""

    async def insert_bills(
        self, tx: Transaction, *, run_id: UUID, bills: Sequence[PeriodBill], now: datetime
    ) -> None:
        """Write the charges and calculations of bills that a run made."""
        origin = BillOrigin(CalculationType.BILLING_RUN, billing_run_id=run_id)
        owners = [
            (
                bill.calculation_run_id,
                bill.subscription.id,
                bill.period.id,
                bill.subscription.currency,
            )
            for bill in bills
        ]
        charged = [
            ChargedPeriod(*owner, bill.charges) for owner, bill in zip(owners, bills, strict=True)
        ]
        calculated = [
            CalculatedPeriod(*owner, bill.calculations)
            for owner, bill in zip(owners, bills, strict=True)
        ]
        await self.insert_charges(tx, origin, charged, now=now)
        await self.insert_calculations(tx, origin, calculated, now=now)

    async def insert_charges(
        self,
        tx: Transaction,
        origin: BillOrigin,
        periods: Sequence[ChargedPeriod],
        *,
        now: datetime,
    ) -> None:
        """Write charges, in the order of their lines."""
        charges = [
            (period, position, charge)
            for period in periods
            for position, charge in enumerate(period.charges)
        ]
        await tx.pg.execute(
            _INSERT_CHARGES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            origin.billing_run_id,
            origin.recalculation_id,
            now,
            [charge.id for _, _, charge in charges],
            [period.subscription_id for period, _, _ in charges],
            [period.billing_period_id for period, _, _ in charges],
            [period.calculation_run_id for period, _, _ in charges],
            [position for _, position, _ in charges],
            [charge.charge_type for _, _, charge in charges],
            [charge.component_id for _, _, charge in charges],
            [charge.description for _, _, charge in charges],
            [charge.quantity for _, _, charge in charges],
            [charge.unit_price for _, _, charge in charges],
            [charge.amount_minor for _, _, charge in charges],
            [period.currency for period, _, _ in charges],
        )

    async def insert_calculations(
        self,
        tx: Transaction,
        origin: BillOrigin,
        periods: Sequence[CalculatedPeriod],
        *,
        now: datetime,
    ) -> None:
        """Write calculations, with the status that goes with what made them."""
        calculations = [(period, c) for period in periods for c in period.calculations]
        await tx.pg.execute(
            _INSERT_CALCULATIONS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            origin.calculation_type,
            origin.status,
            origin.billing_run_id,
            origin.recalculation_id,
            origin.notes or None,
            [c.id for _, c in calculations],
            [period.calculation_run_id for period, _ in calculations],
            [period.subscription_id for period, _ in calculations],
            [period.billing_period_id for period, _ in calculations],
            [c.component_id for _, c in calculations],
            [c.usage_meter_id for _, c in calculations],
            [c.total_quantity for _, c in calculations],
            [c.billable_quantity for _, c in calculations],
            [c.unit_price for _, c in calculations],
            [c.total_raw_usage_minor for _, c in calculations],
            [c.credits_applied_minor for _, c in calculations],
            [c.net_billed_minor for _, c in calculations],
            [period.currency for period, _ in calculations],
        )
