"""What explanations rest on: credits and what they pay, entries, recalculations, movements."""

from datetime import datetime
from itertools import groupby
from typing import Final
from uuid import UUID

import sqlalchemy as sa

from billing.domain.balance_explanations import BalanceMovement, ExplainedTransaction
from billing.domain.charges import KeptCharge
from billing.domain.credit_explanations import (
    CreditUse,
    ExplainedApplication,
    ExplainedDeficit,
    ExplainedSurplus,
)
from billing.domain.credits import CreditApplicationKind, UsageCreditType
from billing.domain.explanations import InvoicedPeriod
from billing.domain.ledger import LedgerEntryType, LedgerSourceType
from billing.domain.proofs import ExplainedEntry
from billing.domain.recalculations import Recalculation
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query

SHOWN_APPLICATIONS: Final = 20
"""So many applications of a credit are told one by one."""
SHOWN_TRANSACTIONS: Final = 5
"""So many ledger transactions of a movement are told one by one."""

_entries = tables.ledger_entries

_LIST_CREDIT_USES = load_query("list_credit_uses")
_LIST_DEFICITS = load_query("list_deficits")
_FIND_SURPLUS = load_query("find_surplus")
_SUM_PAID_BEFORE = load_query("sum_paid_before")
_LIST_MOVEMENTS = load_query("list_balance_movements")
_GET_TOTAL: Final = """
SELECT coalesce(total_amount, 0) FROM billing_periods
WHERE tenant_id = $1 AND livemode = $2 AND id = $3
"""


class ExplanationStore:
    """Reads what charges and balances consist of."""

    async def get_total(self, tx: Transaction, billing_period_id: UUID) -> int:
        """Return what a period is invoiced for in all, in minor units."""
        total = await tx.pg.fetchval(
            _GET_TOTAL, tx.scope.tenant_id, tx.scope.livemode, billing_period_id
        )
        return int(total)

    async def list_entries_of_charge(
        self, tx: Transaction, charge: KeptCharge
    ) -> list[ExplainedEntry]:
        """Return the posted entry of a charge, or none."""
        return await self._list_entries(
            tx,
            LedgerEntryType.CHARGE_BILLED,
            _entries.c.source_charge_id == charge.id,
        )

    async def find_billing_adjustment(
        self, tx: Transaction, calculation_id: UUID
    ) -> ExplainedEntry | None:
        """Return the entry of what a calculation changes, if it changes something."""
        found = await self._list_entries(
            tx,
            LedgerEntryType.BILLING_ADJUSTMENT,
            _entries.c.source_billing_period_calculation_id == calculation_id,
        )
        return found[0] if found else None

    async def list_credit_uses(
        self,
        tx: Transaction,
        charge: KeptCharge,
        invoiced: InvoicedPeriod,
        *,
        component_id: UUID | None,
    ) -> list[CreditUse]:
        """Return what credits pay, of one component or of all, as the charge's execution finds it.

        Of a billing run all that was applied up to it, of a recalculation what it changed.
        """
        records = await tx.pg.fetch(
            _LIST_CREDIT_USES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            charge.billing_period_id,
            component_id,
            [recalculation.id for recalculation in invoiced.recalculations],
            [one.ledger_transaction_id for one in invoiced.recalculations],
            invoiced.execution_number(charge),
            SHOWN_APPLICATIONS,
        )
        by_credit = groupby(records, key=lambda record: record["usage_credit_id"])
        return [_to_credit_use(list(rows)) for _, rows in by_credit]

    async def list_deficits(self, tx: Transaction, charge: KeptCharge) -> list[ExplainedDeficit]:
        """Return what could not be taken back and is owed for a charge's period, in order."""
        records = await tx.pg.fetch(
            _LIST_DEFICITS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            charge.subscription_id,
            charge.billing_period_id,
        )
        return [
            ExplainedDeficit(
                usage_credit_id=record["usage_credit_id"],
                credit_balance_adjustment_id=record["id"],
                refund_id=record["source_refund_id"],
                adjusted_minor=record["amount_adjusted"],
                reason=record["reason"],
                entry=_to_entry(record, record["ledger_entry_id"]),
            )
            for record in records
        ]

    async def find_surplus(
        self, tx: Transaction, charge: KeptCharge, recalculation: Recalculation | None
    ) -> ExplainedSurplus | None:
        """Return the surplus credit that was made with a charge, if one was."""
        record = await tx.pg.fetchrow(
            _FIND_SURPLUS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            charge.subscription_id,
            charge.billing_period_id,
            charge.calculation_run_id,
            recalculation.ledger_transaction_id if recalculation else None,
        )
        if record is None:
            return None
        return ExplainedSurplus(record["usage_credit_id"], _to_entry(record, record["id"]))

    async def sum_paid_before(self, tx: Transaction, charge: KeptCharge) -> int:
        """Return what payments had paid of the period before a charge, in minor units."""
        paid = await tx.pg.fetchval(
            _SUM_PAID_BEFORE,
            tx.scope.tenant_id,
            tx.scope.livemode,
            charge.billing_period_id,
            charge.created_at,
            charge.id,
        )
        return int(paid)

    async def list_movements(
        self, tx: Transaction, subscription_id: UUID, *, after: datetime, until: datetime
    ) -> tuple[BalanceMovement, ...]:
        """Return what was posted after a moment and until another, by type and cause."""
        records = await tx.pg.fetch(
            _LIST_MOVEMENTS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            subscription_id,
            after,
            until,
            SHOWN_TRANSACTIONS,
        )
        kinds = groupby(records, key=lambda r: (r["entry_type"], r["initiating_source_type"]))
        return tuple(_to_movement(list(rows)) for _, rows in kinds)

    async def _list_entries(
        self, tx: Transaction, entry_type: LedgerEntryType, source: sa.ColumnElement[bool]
    ) -> list[ExplainedEntry]:
        """The type is a literal, so that the index of the natural key serves."""
        is_of_type = _entries.c.entry_type == sa.literal_column(f"'{entry_type}'")
        statement = sa.select(_entries).where(
            in_scope(_entries, tx.scope), source, is_of_type, _entries.c.posted_at.is_not(None)
        )
        rows = (await tx.sa.execute(statement)).mappings()
        return [_to_entry(row, row["id"]) for row in rows]


def _to_entry(row: Row, entry_id: UUID) -> ExplainedEntry:
    return ExplainedEntry(entry_id, row["ledger_transaction_id"], row["amount"], row["posted_at"])


def _to_credit_use(rows: list[Row]) -> CreditUse:
    credit = rows[0]
    return CreditUse(
        usage_credit_id=credit["usage_credit_id"],
        credit_type=UsageCreditType(credit["credit_type"]),
        source_reference_id=credit["source_reference_id"] or "",
        expires_at=credit["expires_at"],
        applied_minor=credit["credit_applied_amount"],
        reversed_minor=credit["credit_reversed_amount"],
        reversed_since_minor=credit["credit_reversed_since_amount"],
        application_count=credit["application_count"],
        applications=tuple(_to_application(row) for row in rows),
    )


def _to_application(row: Row) -> ExplainedApplication:
    return ExplainedApplication(
        id=row["id"],
        kind=CreditApplicationKind(row["kind"]),
        component_id=row["component_id"],
        usage_from=row["usage_from"],
        usage_until=row["usage_until"],
        applied_minor=row["applied_amount"],
        reversed_minor=row["reversed_amount"],
        reversed_since_minor=row["reversed_since_amount"],
        applied_at=row["applied_at"],
        ledger_transaction_id=row["ledger_transaction_id"],
    )


def _to_movement(rows: list[Row]) -> BalanceMovement:
    movement = rows[0]
    return BalanceMovement(
        entry_type=LedgerEntryType(movement["entry_type"]),
        source_type=LedgerSourceType(movement["initiating_source_type"]),
        entry_count=movement["movement_entry_count"],
        transaction_count=movement["transaction_count"],
        amount_minor=movement["movement_amount"],
        outstanding_change_minor=movement["movement_outstanding"],
        credit_balance_change_minor=movement["movement_credit_balance"],
        transactions=tuple(
            ExplainedTransaction(
                ledger_transaction_id=row["ledger_transaction_id"],
                initiating_source_id=row["initiating_source_id"],
                description=row["description"],
                entry_count=row["entry_count"],
                amount_minor=row["amount"],
                posted_at=row["posted_at"],
            )
            for row in rows
        ),
    )
