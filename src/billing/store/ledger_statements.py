"""What the ledger tells of one subscription: accounts, transactions with totals, statements."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import asyncpg

from billing.domain.ledger import LedgerAccountKind, LedgerSourceType
from billing.domain.ledger_statements import (
    AccountBalance,
    LedgerTransactionSummary,
    StatementBalance,
    StatementMovement,
    StatementPart,
    account_balance,
)
from billing.domain.pages import Page, PageRequest
from billing.domain.time_ranges import TimeRange, moment_key
from billing.store.database import Transaction
from billing.store.ledger import to_ledger_entry
from billing.store.statements import Row, load_query, to_page

_ACCOUNT_BALANCES = load_query("account_balances")
_TRANSACTION_SUMMARIES = load_query("list_transaction_summaries")
_STATEMENT = load_query("statement")
# PostgreSQL's infinities, as its driver knows them.
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


class LedgerStatementStore:
    """Reads the entries of one subscription."""

    async def list_account_balances(
        self, tx: Transaction, subscription_id: UUID, *, as_of: datetime
    ) -> tuple[AccountBalance, ...]:
        """Return what was in each account that was open at a moment, oldest first."""
        records = await tx.pg.fetch(
            _ACCOUNT_BALANCES, tx.scope.tenant_id, tx.scope.livemode, subscription_id, as_of
        )
        return tuple(
            account_balance(
                account_id=record["id"],
                kind=LedgerAccountKind(record["kind"]),
                opened_at=record["created_at"],
                posted=(record["posted_debit"], record["posted_credit"]),
                pending=(record["pending_debit"], record["pending_credit"]),
                is_spendable=record["is_spendable"],
            )
            for record in records
        )

    async def list_transaction_summaries(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        source_type: LedgerSourceType | None,
        span: TimeRange,
    ) -> Page[LedgerTransactionSummary]:
        """Return a page of a subscription's transactions, newest first."""
        records = await tx.pg.fetch(
            _TRANSACTION_SUMMARIES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            subscription_id,
            request.after[0] if request.after else None,
            source_type,
            span.start,
            span.end,
            request.size + 1,
        )
        return to_page(records, request, decode=_to_summary, key=lambda row: (row["id"],))

    async def get_statement(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        span: TimeRange,
        billing_period_id: UUID | None,
    ) -> StatementPart:
        """Return what led from the balance at the start of the span to that at its end.

        With a billing period, whose span it then is, by the periods of the entries. A page's key
        is the end of the span, and transaction and id of the entry before it.
        """
        end = span.end
        assert end is not None, "a statement has an end"
        _, transaction_id, entry_id = request.after or (None, None, None)
        records = await tx.pg.fetch(
            _STATEMENT,
            tx.scope.tenant_id,
            tx.scope.livemode,
            subscription_id,
            span.start or _EARLIEST,
            end,
            billing_period_id,
            transaction_id,
            entry_id,
            request.size + 1,
        )
        movements = to_page(
            [record for record in records if record["running_net"] is not None],
            request,
            decode=lambda row: StatementMovement(to_ledger_entry(row), row["running_net"]),
            key=lambda row: (moment_key(end), row["ledger_transaction_id"], row["id"]),
        )
        return StatementPart(_end(records[0], "opening"), _end(records[0], "closing"), movements)


def _end(record: asyncpg.Record, name: str) -> StatementBalance:
    return StatementBalance(
        outstanding_minor=record[f"{name}_outstanding"],
        credit_balance_minor=record[f"{name}_credit"],
        refund_clearing_minor=record[f"{name}_clearing"],
    )


def _to_summary(row: Row) -> LedgerTransactionSummary:
    return LedgerTransactionSummary(
        id=row["id"],
        subscription_id=row["subscription_id"],
        initiating_source_type=LedgerSourceType(row["initiating_source_type"]),
        initiating_source_id=row["initiating_source_id"],
        description=row["description"],
        created_at=row["created_at"],
        posted_entry_count=row["posted_entry_count"],
        pending_entry_count=row["pending_entry_count"],
        net_minor=row["net"],
        outstanding_change_minor=row["outstanding_change"],
        credit_balance_change_minor=row["credit_balance_change"],
    )
