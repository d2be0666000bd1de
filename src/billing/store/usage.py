"""Usage events and their running aggregates."""

import operator
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import asyncpg
import sqlalchemy as sa
from pydantic_core import to_json
from sqlalchemy.dialects.postgresql import aggregate_order_by

from billing.domain import identifiers
from billing.domain.catalog import Component
from billing.domain.errors import ResourceNotFound
from billing.domain.ledger import LedgerEntryType
from billing.domain.pages import Page, PageRequest
from billing.domain.usage import (
    KnownUsageEvent,
    UsageEvent,
    UsageEventDisposition,
    UsageTally,
)
from billing.store import tables
from billing.store.database import LostRace, Transaction, violates
from billing.store.statements import Row, in_scope, load_query, page_of, to_page

_events = tables.usage_events
_meters = tables.subscription_usage_meters
_entries = tables.ledger_entries
_corrections = tables.usage_event_corrections

_INSERT_RATED_EVENTS = load_query("insert_rated_events")
_UPSERT_TALLIES = load_query("upsert_subscription_usage_meters")
_LIST_TALLIES: Final = """
SELECT id, billing_period_id, component_id, quantity, rated_amount, event_count,
       pending_quantity, pending_amount, pending_event_count
FROM subscription_usage_meters
WHERE tenant_id = $1 AND livemode = $2 AND billing_period_id = ANY ($3::uuid[])
"""
_FIND_BY_KEY: Final = """
SELECT known.idempotency_key, known.id, known.payload_hash, known.quantity, known.event_timestamp
FROM unnest($3::text[]) AS sent (idempotency_key)
-- One look-up a key, whatever the planner knows of the table: it must not read a tenant's events.
CROSS JOIN LATERAL (
    SELECT idempotency_key, id, payload_hash, quantity, event_timestamp
    FROM usage_events
    WHERE tenant_id = $1 AND livemode = $2 AND idempotency_key = sent.idempotency_key
    LIMIT 1
) AS known
"""

_idempotency_key = operator.attrgetter("idempotency_key")
_ROWS_PER_STATEMENT: Final = 1_000
_KEY_CONSTRAINT: Final = "uq_usage_events_tenant_id_livemode_idempotency_key"


class RatedMeter(NamedTuple):
    """What the events of one aggregate have in common, in the order of the statement's columns."""

    subscription_usage_meter_id: UUID
    subscription_id: UUID
    ledger_transaction_id: UUID
    billing_period_id: UUID
    usage_meter_id: UUID
    currency: str
    receivable_account_id: UUID
    revenue_account_id: UUID
    name: str
    is_held: bool


class RatedEvent(NamedTuple):
    """An event to store and post, in the order of the statement's columns.

    ``meter_number`` counts the meters of the call from 1; ``cost_minor`` is zero or more.
    """

    meter_number: int
    id: UUID
    idempotency_key: str
    payload_hash: bytes
    quantity: Decimal
    event_timestamp: datetime
    properties_json: str | None
    disposition: str
    cost_minor: int


class UsageStore:
    """Reads and writes ``usage_events`` and ``subscription_usage_meters``."""

    async def find_events_by_key(
        self, tx: Transaction, keys: Collection[str]
    ) -> dict[str, KnownUsageEvent]:
        """Return the stored events among the idempotency keys."""
        records = await tx.pg.fetch(_FIND_BY_KEY, tx.scope.tenant_id, tx.scope.livemode, list(keys))
        return {
            record["idempotency_key"]: KnownUsageEvent(
                record["id"],
                record["payload_hash"],
                record["quantity"],
                record["event_timestamp"],
            )
            for record in records
        }

    async def insert_rated_events(
        self,
        tx: Transaction,
        meters: Collection[RatedMeter],
        events: Sequence[RatedEvent],
        *,
        now: datetime,
    ) -> None:
        """Store events and post their costs.

        Raises LostRace where another transaction has just used a key.
        """
        held = {number for number, meter in enumerate(meters, start=1) if meter.is_held}
        posted_count = sum(1 for event in events if event.meter_number not in held)
        tx.posted[LedgerEntryType.USAGE_COST] += posted_count
        shared = [list(column) for column in zip(*meters, strict=True)]
        # In one order for all: two calls with the same keys wait for each other, not in a circle.
        events = sorted(events, key=_idempotency_key)
        for start in range(0, len(events), _ROWS_PER_STATEMENT):
            rows = events[start : start + _ROWS_PER_STATEMENT]
            columns = [list(column) for column in zip(*rows, strict=True)]
            try:
                await tx.pg.execute(
                    _INSERT_RATED_EVENTS,
                    tx.scope.tenant_id,
                    tx.scope.livemode,
                    now,
                    *shared,
                    *columns,
                )
            except asyncpg.UniqueViolationError as error:
                if violates(error, _KEY_CONSTRAINT):
                    raise LostRace from error
                raise

    async def list_tallies(
        self,
        tx: Transaction,
        billing_period_ids: Iterable[UUID],
        *,
        component_of: Callable[[UUID, UUID], Component | None],
    ) -> dict[tuple[UUID, UUID], UsageTally]:
        """Return the aggregates of periods by (period, component).

        ``component_of`` finds the component of a period's plan version.
        """
        records = await tx.pg.fetch(
            _LIST_TALLIES, tx.scope.tenant_id, tx.scope.livemode, list(billing_period_ids)
        )
        tallies = {}
        for record in records:
            period_id, component_id = record["billing_period_id"], record["component_id"]
            component = component_of(period_id, component_id)
            assert component is not None, "an aggregate's component is of its period's plan version"
            tallies[period_id, component_id] = UsageTally(
                id=record["id"],
                billing_period_id=period_id,
                component=component,
                quantity=record["quantity"],
                rated_minor=record["rated_amount"],
                event_count=record["event_count"],
                pending_quantity=record["pending_quantity"],
                pending_minor=record["pending_amount"],
                pending_event_count=record["pending_event_count"],
            )
        return tallies

    async def upsert_tallies(
        self,
        tx: Transaction,
        tallies: Collection[tuple[UUID, UsageTally]],
        *,
        now: datetime,
    ) -> None:
        """Write the aggregates of locked subscriptions, as (subscription, aggregate)."""
        await tx.pg.execute(
            _UPSERT_TALLIES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            now,
            [tally.id for _, tally in tallies],
            [subscription_id for subscription_id, _ in tallies],
            [tally.billing_period_id for _, tally in tallies],
            [tally.component.id for _, tally in tallies],
            [tally.component.usage_meter_id for _, tally in tallies],
            [tally.quantity for _, tally in tallies],
            [tally.rated_minor for _, tally in tallies],
            [tally.event_count for _, tally in tallies],
            [tally.pending_quantity for _, tally in tallies],
            [tally.pending_minor for _, tally in tallies],
            [tally.pending_event_count for _, tally in tallies],
        )

    async def get_event(self, tx: Transaction, usage_event_id: UUID) -> UsageEvent:
        """Return an event with what became of it; raises ResourceNotFound."""
        statement = _events_with_cost(tx).where(_events.c.id == usage_event_id)
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="usage event",
                resource_id=identifiers.to_typeid(identifiers.USAGE_EVENT, usage_event_id),
            )
        return _to_event(row)

    async def list_events(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
        usage_meter_id: UUID | None,
    ) -> Page[UsageEvent]:
        """Return a page of a subscription's events in the order they were rated."""
        statement = _events_with_cost(tx).where(_entries.c.subscription_id == subscription_id)
        if billing_period_id is not None:
            statement = statement.where(_entries.c.billing_period_id == billing_period_id)
        if usage_meter_id is not None:
            statement = statement.where(_entries.c.usage_meter_id == usage_meter_id)
        # By the ledger's key: the events need no index of their own for the order of arrival.
        key = [_entries.c.ledger_transaction_id, _entries.c.id]
        rows = (await tx.sa.execute(page_of(statement, key, request))).mappings().all()
        return to_page(
            rows,
            request,
            decode=_to_event,
            key=lambda row: (row["ledger_transaction_id"], row["ledger_entry_id"]),
        )


def properties_json(properties: Mapping[str, str]) -> str | None:
    """Return properties as they are stored; none at all as NULL."""
    return to_json(properties).decode() if properties else None


def _events_with_cost(tx: Transaction) -> sa.Select[Any]:
    entry_of_event = sa.and_(
        in_scope(_entries, tx.scope),
        _entries.c.source_usage_event_id == _events.c.id,
        _entries.c.entry_type == sa.literal_column("'usage_cost'"),
    )
    meter_of_event = sa.and_(
        in_scope(_meters, tx.scope), _meters.c.id == _events.c.subscription_usage_meter_id
    )
    corrected = _corrections_of_event(tx)
    return (
        sa.select(
            _events,
            _meters.c.component_id,
            _entries.c.usage_meter_id,
            _entries.c.billing_period_id,
            _entries.c.ledger_transaction_id,
            _entries.c.id.label("ledger_entry_id"),
            _entries.c.amount,
            _entries.c.currency,
            _entries.c.discarded_at,
            corrected.c.corrected_quantity,
            corrected.c.corrected_cost,
            corrected.c.is_voided,
        )
        .select_from(_events)
        .join(_entries, entry_of_event)
        .join(_meters, meter_of_event)
        .join(corrected, sa.true(), isouter=True)
        .where(in_scope(_events, tx.scope))
    )


def _corrections_of_event(tx: Transaction) -> sa.FromClause:
    """What the corrections of an event come to; one row, of NULLs where there are none."""
    own = _corrections
    latest = sa.func.array_agg(aggregate_order_by(own.c.quantity_after, own.c.id.desc()))
    return (
        sa.select(
            latest[1].label("corrected_quantity"),
            sa.func.sum(own.c.cost_change_amount).label("corrected_cost"),
            sa.func.bool_or(own.c.correction_type == sa.literal_column("'void'")).label(
                "is_voided"
            ),
        )
        .where(in_scope(own, tx.scope), own.c.usage_event_id == _events.c.id)
        .correlate(_events)
        .lateral("corrected")
    )


def _to_event(row: Row) -> UsageEvent:
    return UsageEvent(
        id=row["id"],
        idempotency_key=row["idempotency_key"],
        subscription_id=row["subscription_id"],
        usage_meter_id=row["usage_meter_id"],
        component_id=row["component_id"],
        billing_period_id=row["billing_period_id"],
        quantity=row["quantity"],
        event_timestamp=row["event_timestamp"],
        properties=row["properties"] or {},
        disposition=UsageEventDisposition(row["disposition"]),
        cost_minor=-row["amount"],
        currency=row["currency"],
        ledger_entry_id=row["ledger_entry_id"],
        received_at=row["received_at"],
        corrected_quantity=(
            row["quantity"] if row["corrected_quantity"] is None else row["corrected_quantity"]
        ),
        corrected_cost_minor=int(row["corrected_cost"] or 0) - row["amount"],
        is_voided=bool(row["is_voided"]),
        taken_in_at=row["discarded_at"],
    )
