"""What billing a period leaves behind: charges and calculations."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from billing.domain.billing import PeriodBill
from billing.store.database import Transaction
from billing.store.statements import load_query

_INSERT_CHARGES = load_query("insert_charges")
_INSERT_CALCULATIONS = load_query("insert_calculations")


class BillStore:
    """Writes ``charges`` and ``calculations``."""

    async def insert_bills(
        self, tx: Transaction, *, run_id: UUID, bills: Sequence[PeriodBill], now: datetime
    ) -> None:
        """Write the charges and calculations of bills."""
        charges = [
            (bill, position, charge)
            for bill in bills
            for position, charge in enumerate(bill.charges)
        ]
        await tx.pg.execute(
            _INSERT_CHARGES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            run_id,
            now,
            [charge.id for _, _, charge in charges],
            [bill.subscription.id for bill, _, _ in charges],
            [bill.period.id for bill, _, _ in charges],
            [bill.calculation_run_id for bill, _, _ in charges],
            [position for _, position, _ in charges],
            [charge.charge_type for _, _, charge in charges],
            [charge.component_id for _, _, charge in charges],
            [charge.description for _, _, charge in charges],
            [charge.quantity for _, _, charge in charges],
            [charge.unit_price for _, _, charge in charges],
            [charge.amount_minor for _, _, charge in charges],
            [bill.subscription.currency for bill, _, _ in charges],
        )
        calculations = [(bill, c) for bill in bills for c in bill.calculations]
        await tx.pg.execute(
            _INSERT_CALCULATIONS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            run_id,
            now,
            [c.id for _, c in calculations],
            [bill.calculation_run_id for bill, _ in calculations],
            [bill.subscription.id for bill, _ in calculations],
            [bill.period.id for bill, _ in calculations],
            [c.component_id for _, c in calculations],
            [c.usage_meter_id for _, c in calculations],
            [c.total_quantity for _, c in calculations],
            [c.billable_quantity for _, c in calculations],
            [c.unit_price for _, c in calculations],
            [c.total_raw_usage_minor for _, c in calculations],
            [c.credits_applied_minor for _, c in calculations],
            [c.net_billed_minor for _, c in calculations],
            [bill.subscription.currency for bill, _ in calculations],
        )
