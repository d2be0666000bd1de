"""Brings the documents of recalculations to the invoicing service, after their commit.

What cannot be delivered keeps its request; whoever comes next sends the same again.
"""

import logging
import random
from typing import Final
from uuid import UUID

from billing.domain.errors import BillingError, InvoiceNotDelivered, InvoicingUnavailable
from billing.domain.invoices import CreditNoteRequest, InvoiceRequest
from billing.domain.scope import Scope
from billing.services.ports import Clock, InvoiceCorrections
from billing.store.database import Database
from billing.store.recalculations import RecalculationStore, UndeliveredDocument
from billing.store.tenants import TenantStore

_logger = logging.getLogger(__name__)

_BATCH_SIZE: Final = 1_000
_GIVE_UP_AFTER: Final = 8
"""So many recalculations in a row that were left unanswered mean that invoicing is down."""


class RecalculationDelivery:
    """Delivers additional invoices, credit notes and voids. Safe to repeat, by anybody."""

    def __init__(
        self,
        database: Database,
        tenants: TenantStore,
        recalculations: RecalculationStore,
        invoicing: InvoiceCorrections,
        clock: Clock,
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._recalculations = recalculations
        self._invoicing = invoicing
        self._clock = clock

    async def deliver(self, scope: Scope, recalculation_id: UUID) -> BillingError | None:
        """Deliver what of a recalculation is not delivered yet; return why not all of it is."""
        async with self._database.transaction(scope) as tx:
            documents = await self._recalculations.list_undelivered_documents(tx, recalculation_id)
        for document in documents:
            answer = await self._ask(document)
            async with self._database.transaction(scope) as tx:
                if isinstance(answer, BillingError):
                    await self._recalculations.update_failure(tx, document.id, _failure(answer))
                    return answer
                recorded = await self._recalculations.update_delivered(
                    tx, document.id, answer, now=self._clock()
                )
            if not recorded:
                _logger.error(
                    "document %s was made as %s, and was recorded meanwhile: compare the two",
                    document.request.idempotency_key,
                    answer,
                )
        return None

    async def deliver_undelivered(self) -> None:
        """Try again what was not delivered, of every scope, unless invoicing is down."""
        async with self._database.unscoped_connection() as pg:
            scopes = await self._tenants.list_scopes(pg)
        unanswered_in_a_row = 0
        # In any order: those whose documents meet silence must not always come first.
        for scope in random.sample(scopes, len(scopes)):
            try:
                unanswered_in_a_row = await self._deliver_scope(scope, unanswered_in_a_row)
            except Exception:
                _logger.exception("documents of tenant %s cannot be delivered", scope.tenant_id)
            if unanswered_in_a_row >= _GIVE_UP_AFTER:
                return

    async def _deliver_scope(self, scope: Scope, unanswered_in_a_row: int) -> int:
        """Deliver batch by batch; return how many were left unanswered in a row at the end.

        What is refused, or fails for a reason of its own, holds up nobody else.
        """
        after = None
        while True:
            async with self._database.transaction(scope) as tx:
                waiting = await self._recalculations.list_undelivered_recalculations(
                    tx, after=after, limit=_BATCH_SIZE
                )
            for recalculation_id in random.sample(waiting, len(waiting)):
                failure = await self.deliver(scope, recalculation_id)
                is_silent = isinstance(failure, InvoicingUnavailable) and not failure.answered
                unanswered_in_a_row = unanswered_in_a_row + 1 if is_silent else 0
                if unanswered_in_a_row >= _GIVE_UP_AFTER:
                    return unanswered_in_a_row
            if len(waiting) < _BATCH_SIZE:
                return unanswered_in_a_row
            after = waiting[-1]

    async def _ask(self, document: UndeliveredDocument) -> str | BillingError:
        """Return the document's id, or why there is none."""
        request = document.request
        try:
            if isinstance(request, InvoiceRequest):
                return await self._invoicing.create_invoice(request)
            if isinstance(request, CreditNoteRequest):
                return await self._invoicing.create_credit_note(request)
            await self._invoicing.void_invoice(request)
        except BillingError as error:
            _logger.warning(
                "document %s is not delivered: %s", request.idempotency_key, _failure(error)
            )
            return error
        except Exception as error:
            _logger.exception("document %s is not delivered", request.idempotency_key)
            return InvoiceNotDelivered(detail=type(error).__name__)
        return request.invoice_id


def _failure(error: BillingError) -> str:
    """Say why a document is not delivered: what errors say of a billing run's invoice is not so."""
    return f"{error.metadata.get('detail', error.message)}; it is sent again every minute"
