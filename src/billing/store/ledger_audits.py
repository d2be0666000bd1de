"""The statements of the ledger audit: each returns what does not agree."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from billing.domain import identifiers
from billing.domain.ledger import POSTING_RULES
from billing.domain.ledger_audit import (
    MAX_FINDINGS_PER_CHECK,
    RAW_USAGE_TYPES,
    RUNNING_USAGE_TYPES,
    AskedInvoice,
    CheckedBooks,
    LedgerAuditCheck,
    LedgerAuditFinding,
)
from billing.store.balances import BalanceParts
from billing.store.database import Transaction
from billing.store.statements import load_query

_LIST_SUBSCRIPTIONS = load_query("list_audited_subscriptions")
_LIST_INVOICES = load_query("list_asked_invoices")

# What one call reads: so many events and their entries take some seconds.
_MAX_EVENTS: Final = 200_000
_MAX_PERIODS: Final = 2_000

_ID_COLUMNS: Final = {
    "ledger_entry_id": identifiers.LEDGER_ENTRY,
    "credit_application_id": identifiers.CREDIT_APPLICATION,
    "credit_balance_adjustment_id": identifiers.CREDIT_BALANCE_ADJUSTMENT,
    "calculation_id": identifiers.CALCULATION,
    "recalculation_id": identifiers.CALCULATION_RUN,
    "write_off_id": identifiers.WRITE_OFF,
    "charge_id": identifiers.CHARGE,
    "usage_event_correction_id": identifiers.USAGE_EVENT_CORRECTION,
    "usage_event_id": identifiers.USAGE_EVENT,
    "refund_id": identifiers.REFUND,
    "payment_id": identifiers.PAYMENT,
    "usage_credit_id": identifiers.USAGE_CREDIT,
    "subscription_usage_meter_id": identifiers.SUBSCRIPTION_USAGE_METER,
    "component_id": identifiers.COMPONENT,
    "usage_meter_id": identifiers.USAGE_METER,
    "billing_run_result_id": identifiers.BILLING_RUN_RESULT,
    "billing_run_id": identifiers.BILLING_RUN,
    "ledger_transaction_id": identifiers.LEDGER_TRANSACTION,
}
"""The columns in which a statement names things, nearest first, with their TypeIDs' prefixes."""

_RULES: Final = tuple(sorted(POSTING_RULES))

_FURTHER_ARGUMENTS: Final[Mapping[LedgerAuditCheck, Sequence[object]]] = {
    LedgerAuditCheck.ENTRY_RULES: [list(column) for column in zip(*_RULES, strict=True)],
    LedgerAuditCheck.CALCULATION_AMOUNTS: [list(RAW_USAGE_TYPES)],
    LedgerAuditCheck.PERIOD_RECEIVABLES: [list(RUNNING_USAGE_TYPES)],
}


def _load_check(check: LedgerAuditCheck) -> str:
    """Return a check's statement with the count of all that it finds, and a bounded part of it."""
    return (
        f"SELECT *, count(*) OVER () AS finding_count FROM (\n{load_query(f'audit/{check}')}\n)"  # noqa: S608
        f" AS found LIMIT {MAX_FINDINGS_PER_CHECK}"
    )


_STATEMENTS: Final[Mapping[LedgerAuditCheck, str]] = {
    check: _load_check(check)
    for check in LedgerAuditCheck
    if check is not LedgerAuditCheck.INVOICES
}


class AuditedSubscriptions(NamedTuple):
    """The subscriptions that a call looks at, by id, and whether more follow."""

    ids: tuple[UUID, ...]
    more_follow: bool


class LedgerAuditStore:
    """Compares what the tables say of the same thing."""

    async def list_subscriptions(
        self, tx: Transaction, *, after: UUID | None, limit: int
    ) -> AuditedSubscriptions:
        """Return the next subscriptions: fewer than ``limit`` where they have much usage."""
        records = await tx.pg.fetch(
            _LIST_SUBSCRIPTIONS,
            tx.scope.tenant_id,
            tx.scope.livemode,
            after,
            limit,
            _MAX_EVENTS,
            _MAX_PERIODS,
        )
        more_follow = bool(records) and records[0]["more_follow"]
        return AuditedSubscriptions(tuple(record["id"] for record in records), more_follow)

    async def list_tenant_findings(self, tx: Transaction, check: LedgerAuditCheck) -> CheckedBooks:
        """Return what a check of the whole tenant finds."""
        return await self._list(tx, check)

    async def list_findings(
        self, tx: Transaction, check: LedgerAuditCheck, subscription_ids: Sequence[UUID]
    ) -> CheckedBooks:
        """Return what a check of subscriptions finds."""
        return await self._list(
            tx, check, list(subscription_ids), *_FURTHER_ARGUMENTS.get(check, ())
        )

    async def list_balance_findings(
        self, tx: Transaction, served: Mapping[UUID, BalanceParts], *, now: datetime
    ) -> CheckedBooks:
        """Compare balances as they are served at ``now`` with the sums of the entries."""
        columns = zip(*served.values(), strict=True) if served else [()] * len(BalanceParts._fields)
        return await self._list(
            tx,
            LedgerAuditCheck.BALANCES,
            list(served),
            list(served),
            *[list(column) for column in columns],
            now,
        )

    async def list_asked_invoices(
        self, tx: Transaction, subscription_ids: Sequence[UUID]
    ) -> list[AskedInvoice]:
        """Return the invoices that periods of subscriptions name."""
        records = await tx.pg.fetch(
            _LIST_INVOICES, tx.scope.tenant_id, tx.scope.livemode, list(subscription_ids)
        )
        return [
            AskedInvoice(
                record["subscription_id"],
                record["billing_period_id"],
                record["invoice_id"],
                record["customer_id"],
                record["currency"],
                record["total_amount"],
                record["credited_amount"],
                record["is_voided"],
            )
            for record in records
        ]

    async def _list(
        self, tx: Transaction, check: LedgerAuditCheck, *arguments: object
    ) -> CheckedBooks:
        records = await tx.pg.fetch(
            _STATEMENTS[check], tx.scope.tenant_id, tx.scope.livemode, *arguments
        )
        count = records[0]["finding_count"] if records else 0
        return CheckedBooks(tuple(_to_finding(check, record) for record in records), count)


def _to_finding(check: LedgerAuditCheck, record: asyncpg.Record) -> LedgerAuditFinding:
    return LedgerAuditFinding(
        check,
        record["problem"],
        subscription_id=record.get("subscription_id"),
        billing_period_id=record.get("billing_period_id"),
        resource_ids=tuple(
            identifiers.to_typeid(prefix, record[column])
            for column, prefix in _ID_COLUMNS.items()
            if record.get(column) is not None
        ),
        currency=record.get("currency") or "",
        expected_minor=_amount(record.get("expected_amount")),
        actual_minor=_amount(record.get("actual_amount")),
        expected_quantity=record.get("expected_quantity"),
        actual_quantity=record.get("actual_quantity"),
    )


def _amount(value: Decimal | int | None) -> int | None:
    return None if value is None else int(value)
