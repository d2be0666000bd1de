"""Use case: the ledger, page by page, for who writes it to a file."""

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from billing.domain.ledger_export import ExportedEntry, ExportSelection
from billing.domain.pages import PageRequest
from billing.domain.scope import Scope
from billing.store.database import Database
from billing.store.ledger_exports import LedgerExportStore
from billing.store.subscriptions import SubscriptionStore

# Few, as other calls wait while a page is written out.
_ENTRIES_PER_PAGE: Final = 250


class LedgerExportService:
    """Reads the ledger from one end to the other."""

    def __init__(
        self, database: Database, exports: LedgerExportStore, subscriptions: SubscriptionStore
    ) -> None:
        self._database = database
        self._exports = exports
        self._subscriptions = subscriptions

    async def export_ledger(
        self, scope: Scope, selection: ExportSelection
    ) -> AsyncGenerator[Sequence[ExportedEntry], None]:
        """Yield the entries in pages; raises ResourceNotFound.

        Each page is a transaction of its own: a slow reader holds no connection, and none of the
        database's old rows. Entries never move, so none comes twice, and none is passed over that
        was posted before.
        """
        if selection.subscription_id is not None:
            async with self._database.transaction(scope) as tx:
                await self._subscriptions.get_subscription(tx, selection.subscription_id)
        request = PageRequest(_ENTRIES_PER_PAGE)
        while True:
            async with self._database.transaction(scope) as tx:
                page = await self._exports.list_entries(tx, request, selection)
            yield page.items
            if page.next_after is None:
                return
            request = PageRequest(_ENTRIES_PER_PAGE, page.next_after)
