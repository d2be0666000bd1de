"""Asks the invoicing service for invoices: so many at a time, and no longer than it helps."""

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from billing.domain.errors import BillingError, InvoiceNotDelivered, InvoicingUnavailable
from billing.domain.invoices import InvoiceRequest
from billing.services.ports import Invoicing

_logger = logging.getLogger(__name__)

_GIVE_UP_AFTER: Final = 32
"""So many invoices in a row that the invoicing service left unanswered mean that it is down."""
_MAX_REMEMBERED_RUNS: Final = 1_000


class InvoiceDelivery:
    """Delivers the stored requests of a run's batches.

    Each failure has cost several attempts already. When too many in a row were left unanswered, the
    rest of the batch fails at once, and each further batch of the run first tries a single one: a
    hanging invoicing service must not hold a hundred thousand periods for a day.
    """

    def __init__(self, invoicing: Invoicing, *, concurrency: int) -> None:
        self._invoicing = invoicing
        self._slots = asyncio.Semaphore(concurrency)
        self._unanswered_in_a_row: dict[UUID, int] = {}

    async def request_invoices(
        self, run_id: UUID, requests: Sequence[InvoiceRequest]
    ) -> list[str | BillingError]:
        """Return the invoice's id, or why there is none, for each request in its order."""
        # In any order: invoices that fail for a reason of their own must not always come first.
        order = random.sample(range(len(requests)), len(requests))
        if order and self._is_down(run_id):
            probe = order.pop()
            answers = {probe: await self._request(run_id, requests[probe])}
        else:
            answers = {}
        async with asyncio.TaskGroup() as group:
            tasks = {
                number: group.create_task(self._request_unless_down(run_id, requests[number]))
                for number in order
            }
        answers |= {number: task.result() for number, task in tasks.items()}
        return [answers[number] for number in range(len(requests))]

    async def _request_unless_down(
        self, run_id: UUID, request: InvoiceRequest
    ) -> str | BillingError:
        async with self._slots:
            if self._is_down(run_id):
                return InvoicingUnavailable(
                    detail="no answer to the invoices before this one", attempts_count=0
                )
            return await self._request(run_id, request)

    async def _request(self, run_id: UUID, request: InvoiceRequest) -> str | BillingError:
        try:
            answer: str | BillingError = await self._invoicing.create_invoice(request)
        except BillingError as error:
            answer = error
        except Exception as error:
            _logger.exception("invoice %s was not delivered", request.idempotency_key)
            answer = InvoiceNotDelivered(detail=type(error).__name__)
        self._note(run_id, answer)
        return answer

    def _is_down(self, run_id: UUID) -> bool:
        return self._unanswered_in_a_row.get(run_id, 0) >= _GIVE_UP_AFTER

    def _note(self, run_id: UUID, answer: str | BillingError) -> None:
        if not isinstance(answer, InvoicingUnavailable) or answer.answered:
            self._unanswered_in_a_row.pop(run_id, None)
            return
        if len(self._unanswered_in_a_row) >= _MAX_REMEMBERED_RUNS:
            self._unanswered_in_a_row.clear()
        self._unanswered_in_a_row[run_id] = self._unanswered_in_a_row.get(run_id, 0) + 1
