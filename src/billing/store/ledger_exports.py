"""The ledger in pages that are exported one after the other."""

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from billing.domain.ledger import LedgerSourceType
from billing.domain.ledger_export import ExportedEntry, ExportSelection
from billing.domain.pages import Page, PageRequest
from billing.store.database import Transaction
from billing.store.ledger import to_ledger_entry
from billing.store.statements import Row, load_query, to_page

_LIST = load_query("list_export_entries")
_LOWEST_ID: Final = UUID(int=0)
_HIGHEST_ID: Final = UUID(int=2**128 - 1)
# PostgreSQL's infinities, as its driver knows them.
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class LedgerExportStore:
    """Reads entries in the order of their primary key, so that no page reads what is before it."""

    async def list_entries(
        self, tx: Transaction, request: PageRequest, selection: ExportSelection
    ) -> Page[ExportedEntry]:
        """Return a page of entries; its key is subscription, transaction and id."""
        first = selection.subscription_id or _LOWEST_ID
        records = await tx.pg.fetch(
            _LIST,
            tx.scope.tenant_id,
            tx.scope.livemode,
            *(request.after or (first, _LOWEST_ID, _LOWEST_ID)),
            selection.subscription_id or _HIGHEST_ID,
            selection.span.start or _EARLIEST,
            selection.span.end or _LATEST,
            selection.include_pending,
            request.size + 1,
        )
        return to_page(
            records,
            request,
            decode=_to_exported_entry,
            key=lambda row: (row["subscription_id"], row["ledger_transaction_id"], row["id"]),
        )


def _to_exported_entry(row: Row) -> ExportedEntry:
    return ExportedEntry(
        to_ledger_entry(row),
        LedgerSourceType(row["initiating_source_type"]),
        row["initiating_source_id"],
        row["transaction_description"],
    )
