"""What lines of usage consist of: events, corrections, calculations."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from billing.domain import identifiers
from billing.domain.calculations import KeptCalculation
from billing.domain.charges import KeptCharge
from billing.domain.pages import Page, PageRequest
from billing.domain.usage_corrections import UsageEventCorrectionType
from billing.domain.usage_explanations import (
    ExplainedCorrection,
    ExplainedUsageEvent,
    TakenInUsage,
    UsageTotals,
)
from billing.store.calculations import to_calculation
from billing.store.database import Transaction
from billing.store.statements import Row, load_query, to_page

_SUM_POSTED = load_query("sum_posted_usage")
_LIST_POSTED = load_query("list_posted_usage")
_LIST_CORRECTIONS = load_query("list_posted_corrections")
_SUM_TAKEN_IN = load_query("sum_taken_in_usage")
_LIST_TAKEN_IN = load_query("list_taken_in_usage")
_LIST_CALCULATIONS = load_query("list_explained_calculations")
_FIND_METER: Final = """
SELECT id FROM subscription_usage_meters
WHERE tenant_id = $1 AND livemode = $2 AND billing_period_id = $3 AND component_id = $4
"""
_CLOCK_MARGIN: Final = timedelta(hours=1)
_FIRST: Final = UUID(int=0)


class BilledMeter(NamedTuple):
    """One component's aggregate in a billed period, and between which ids its usage came."""

    subscription_id: UUID
    billing_period_id: UUID
    subscription_usage_meter_id: UUID
    earliest_transaction_id: UUID
    latest_transaction_id: UUID


class TakenIn(NamedTuple):
    """One component's usage that a recalculation took in, and when."""

    subscription_id: UUID
    billing_period_id: UUID
    subscription_usage_meter_id: UUID
    taken_in_at: datetime


class ExplainedUsageStore:
    """Reads usage line by line; each statement looks up one subscription's rows."""

    async def find_meter(self, tx: Transaction, charge: KeptCharge) -> UUID | None:
        """Return the aggregate of a line of usage; None where there was none."""
        found = await tx.pg.fetchval(
            _FIND_METER,
            tx.scope.tenant_id,
            tx.scope.livemode,
            charge.billing_period_id,
            charge.component_id,
        )
        assert found is None or isinstance(found, UUID)
        return found

    async def list_calculations(self, tx: Transaction, charge: KeptCharge) -> list[KeptCalculation]:
        """Return what was calculated of a line's component, in order.

        Of the estimates only those that the others replaced.
        """
        records = await tx.pg.fetch(
            _LIST_CALCULATIONS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            charge.subscription_id,
            charge.billing_period_id,
            charge.component_id,
        )
        return [to_calculation(record) for record in records]

    async def sum_posted(self, tx: Transaction, meter: BilledMeter) -> UsageTotals:
        """Return what the posted usage of a component comes to."""
        record = await tx.pg.fetchrow(_SUM_POSTED, tx.scope.tenant_id, tx.scope.livemode, *meter)
        assert record is not None
        return UsageTotals(*record.values())

    async def list_posted(
        self, tx: Transaction, request: PageRequest, meter: BilledMeter
    ) -> Page[ExplainedUsageEvent]:
        """Return a page of a component's events with their corrections, as they were rated."""
        records = await tx.pg.fetch(
            _LIST_POSTED,
            tx.scope.tenant_id,
            tx.scope.livemode,
            *meter[:3],
            *(request.after or (meter.earliest_transaction_id, _FIRST)),
            meter.latest_transaction_id,
            request.size + 1,
        )
        corrections = await self._list_corrections(tx, [record["id"] for record in records])
        return to_page(
            records,
            request,
            decode=lambda row: _to_event(row, corrections.get(row["id"], ())),
            key=_key,
        )

    async def sum_taken_in(self, tx: Transaction, taken_in: TakenIn) -> UsageTotals:
        """Return what a recalculation took in of a component, in all."""
        record = await tx.pg.fetchrow(
            _SUM_TAKEN_IN, tx.scope.tenant_id, tx.scope.livemode, *taken_in
        )
        assert record is not None
        return UsageTotals(*record.values())

    async def list_taken_in(
        self, tx: Transaction, request: PageRequest, taken_in: TakenIn
    ) -> Page[TakenInUsage]:
        """Return a page of what a recalculation took in of a component, as it came."""
        records = await tx.pg.fetch(
            _LIST_TAKEN_IN,
            tx.scope.tenant_id,
            tx.scope.livemode,
            *taken_in,
            *(request.after or (_FIRST, _FIRST)),
            request.size + 1,
        )
        return to_page(records, request, decode=_to_taken_in, key=_key)

    async def _list_corrections(
        self, tx: Transaction, event_ids: Sequence[UUID]
    ) -> dict[UUID, tuple[ExplainedCorrection, ...]]:
        records = await tx.pg.fetch(
            _LIST_CORRECTIONS, tx.scope.tenant_id, tx.scope.livemode, event_ids
        )
        corrections: dict[UUID, tuple[ExplainedCorrection, ...]] = {}
        for record in records:
            correction = _to_correction(record)
            event_id = correction.usage_event_id
            corrections[event_id] = (*corrections.get(event_id, ()), correction)
        return corrections


def billed_meter(charge: KeptCharge, subscription_usage_meter_id: UUID) -> BilledMeter:
    """Return where to look for the usage of a billing run's line.

    No entry of a period was made before the period itself, and none of its usage was posted after
    the line; ids tell their time, and clocks may differ by an hour.
    """
    return BilledMeter(
        charge.subscription_id,
        charge.billing_period_id,
        subscription_usage_meter_id,
        identifiers.earliest_id(identifiers.made_at(charge.billing_period_id) - _CLOCK_MARGIN),
        identifiers.earliest_id(identifiers.made_at(charge.id) + _CLOCK_MARGIN),
    )


def _key(row: Row) -> tuple[UUID, UUID]:
    return row["ledger_transaction_id"], row["ledger_entry_id"]


def _to_event(
    row: Row, corrections: tuple[ExplainedCorrection, ...] = (), *, is_late: bool | None = None
) -> ExplainedUsageEvent:
    return ExplainedUsageEvent(
        id=row["id"],
        idempotency_key=row["idempotency_key"],
        event_timestamp=row["event_timestamp"],
        quantity=row["quantity"],
        cost_minor=row["cost"],
        is_late=row["is_late"] if is_late is None else is_late,
        ledger_entry_id=row["ledger_entry_id"],
        ledger_transaction_id=row["ledger_transaction_id"],
        corrections=corrections,
    )


def _to_correction(row: Row) -> ExplainedCorrection:
    """A correction's entry has its id."""
    return ExplainedCorrection(
        id=row["id"],
        usage_event_id=row["usage_event_id"],
        is_void=row["correction_type"] == UsageEventCorrectionType.VOID,
        quantity_before=row["quantity_before"],
        quantity_after=row["quantity"],
        cost_change_minor=row["cost"],
        reason=row["reason"],
        ledger_entry_id=row["id"],
        ledger_transaction_id=row["ledger_transaction_id"],
        corrected_at=row["corrected_at"],
    )


def _to_taken_in(row: Row) -> TakenInUsage:
    """Held events come late, by their nature."""
    return _to_event(row, is_late=True) if row["usage_event_id"] is None else _to_correction(row)
