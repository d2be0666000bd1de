"""Recalculations, and what the invoicing service is asked for because of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa

from billing.domain import identifiers
from billing.domain.errors import ResourceNotFound
from billing.domain.invoices import CreditNoteRequest, InvoiceRequest, VoidRequest
from billing.domain.pages import Page, PageRequest
from billing.domain.recalculations import (
    IssuedInvoice,
    Recalculation,
    RecalculationDocument,
    RecalculationDocumentKind,
)
from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import Row, in_scope, load_query, page_of, scope_values, to_page
from billing.store.stored_requests import CREDIT_NOTE_REQUESTS, INVOICE_REQUESTS, VOID_REQUESTS

_recalculations = tables.recalculations
_documents = tables.recalculation_documents

_LIST_INVOICES = load_query("list_issued_invoices")
_RECORD_DOCUMENT = load_query("record_recalculation_document")
_INSERT_DOCUMENT: Final = """
INSERT INTO recalculation_documents (
    tenant_id, livemode, id, recalculation_id, position, kind, amount, currency, invoice_id,
    request, created_at
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11)
"""
_SUM_CHARGES: Final = """
SELECT coalesce(sum(amount), 0)::bigint FROM charges
WHERE tenant_id = $1 AND livemode = $2 AND subscription_id = $3 AND billing_period_id = $4
  AND charge_type <> 'carried'
"""
_LIST_UNDELIVERED: Final = """
SELECT DISTINCT recalculation_id FROM recalculation_documents
WHERE tenant_id = $1 AND livemode = $2 AND delivered_at IS NULL
  AND ($3::uuid IS NULL OR recalculation_id > $3)
ORDER BY recalculation_id
LIMIT $4
"""
_COUNT_UNDELIVERED: Final = """
SELECT count(*) FROM recalculation_documents
WHERE tenant_id = $1 AND livemode = $2 AND delivered_at IS NULL
"""
_NOTE_FAILURE: Final = """
UPDATE recalculation_documents SET failure = $4
WHERE tenant_id = $1 AND livemode = $2 AND id = $3 AND delivered_at IS NULL
"""

DocumentRequest = InvoiceRequest | CreditNoteRequest | VoidRequest


class NewDocument(NamedTuple):
    """A document to ask for, with its request."""

    id: UUID
    kind: RecalculationDocumentKind
    amount_minor: int
    invoice_id: str
    request: DocumentRequest


class UndeliveredDocument(NamedTuple):
    """A document that the invoicing service does not have yet."""

    id: UUID
    kind: RecalculationDocumentKind
    request: DocumentRequest


class RecalculationStore:
    """Reads and writes ``recalculations`` and ``recalculation_documents``."""

    async def insert_recalculation(self, tx: Transaction, recalculation: Recalculation) -> None:
        """Record a recalculation; what it made comes next."""
        r = recalculation
        await tx.sa.execute(
            sa.insert(_recalculations).values(
                **scope_values(tx.scope),
                id=r.id,
                subscription_id=r.subscription_id,
                billing_period_id=r.billing_period_id,
                ledger_transaction_id=r.ledger_transaction_id,
                currency=r.currency,
                reason=r.reason,
                raw_change_amount=r.raw_change_minor,
                credits_change_amount=r.credits_change_minor,
                net_change_amount=r.net_change_minor,
                recovered_amount=r.recovered_minor,
                released_amount=r.released_minor,
                surplus_amount=r.surplus_minor,
                created_at=r.created_at,
            )
        )

    async def insert_documents(
        self,
        tx: Transaction,
        recalculation: Recalculation,
        documents: Sequence[NewDocument],
    ) -> None:
        """Store what the invoicing service will be asked for, in this order."""
        for position, document in enumerate(documents):
            await tx.pg.execute(
                _INSERT_DOCUMENT,
                tx.scope.tenant_id,
                tx.scope.livemode,
                document.id,
                recalculation.id,
                position,
                document.kind,
                document.amount_minor,
                recalculation.currency,
                document.invoice_id or None,
                _to_json(document.request),
                recalculation.created_at,
            )

    async def list_issued_invoices(
        self, tx: Transaction, billing_period_id: UUID
    ) -> list[IssuedInvoice]:
        """Return the invoices of a period, the newest first."""
        records = await tx.pg.fetch(
            _LIST_INVOICES, tx.scope.tenant_id, tx.scope.livemode, billing_period_id
        )
        return [IssuedInvoice(*record) for record in records]

    async def sum_charges(
        self, tx: Transaction, *, subscription_id: UUID, billing_period_id: UUID
    ) -> int:
        """Return what a period was charged all in all, without what was carried."""
        total = await tx.pg.fetchval(
            _SUM_CHARGES,
            tx.scope.tenant_id,
            tx.scope.livemode,
            subscription_id,
            billing_period_id,
        )
        return int(total)

    async def find_undelivered_of_period(
        self, tx: Transaction, *, subscription_id: UUID, billing_period_id: UUID
    ) -> RecalculationDocument | None:
        """Return the first document of a period's recalculations that is not delivered."""
        statement = (
            sa.select(_documents)
            .join(
                _recalculations,
                sa.and_(
                    in_scope(_recalculations, tx.scope),
                    _recalculations.c.id == _documents.c.recalculation_id,
                ),
            )
            .where(
                in_scope(_documents, tx.scope),
                _recalculations.c.subscription_id == subscription_id,
                _recalculations.c.billing_period_id == billing_period_id,
                _documents.c.delivered_at.is_(None),
            )
            .order_by(_documents.c.id)
            .limit(1)
        )
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        return _to_document(row) if row is not None else None

    async def lock_document(
        self, tx: Transaction, recalculation_document_id: UUID
    ) -> RecalculationDocument:
        """Return a document; nobody else records its delivery then. Raises ResourceNotFound."""
        statement = (
            sa.select(_documents)
            .where(in_scope(_documents, tx.scope), _documents.c.id == recalculation_document_id)
            .with_for_update(key_share=True)
        )
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="recalculation document",
                resource_id=identifiers.to_typeid(
                    identifiers.RECALCULATION_DOCUMENT, recalculation_document_id
                ),
            )
        return _to_document(row)

    async def list_undelivered_recalculations(
        self, tx: Transaction, *, after: UUID | None, limit: int
    ) -> list[UUID]:
        """Return recalculations with documents that are not delivered, oldest first."""
        records = await tx.pg.fetch(
            _LIST_UNDELIVERED, tx.scope.tenant_id, tx.scope.livemode, after, limit
        )
        return [record["recalculation_id"] for record in records]

    async def count_undelivered(self, tx: Transaction) -> int:
        """Count the documents that the invoicing service does not have yet."""
        count = await tx.pg.fetchval(_COUNT_UNDELIVERED, tx.scope.tenant_id, tx.scope.livemode)
        return int(count)

    async def list_undelivered_documents(
        self, tx: Transaction, recalculation_id: UUID
    ) -> list[UndeliveredDocument]:
        """Return what of a recalculation is not delivered, with the stored requests."""
        statement = (
            sa.select(
                _documents.c.id,
                _documents.c.kind,
                sa.cast(_documents.c.request, sa.Text).label("r"),
            )
            .where(
                in_scope(_documents, tx.scope),
                _documents.c.recalculation_id == recalculation_id,
                _documents.c.delivered_at.is_(None),
            )
            .order_by(_documents.c.position)
        )
        return [
            UndeliveredDocument(row["id"], kind, _from_json(kind, row["r"]))
            for row in (await tx.sa.execute(statement)).mappings()
            for kind in [RecalculationDocumentKind(row["kind"])]
        ]

    async def update_delivered(
        self, tx: Transaction, document_id: UUID, delivered_id: str, *, now: datetime
    ) -> bool:
        """Record what the invoicing service made, also on the calculations; once."""
        recorded = await tx.pg.fetchval(
            _RECORD_DOCUMENT,
            tx.scope.tenant_id,
            tx.scope.livemode,
            document_id,
            delivered_id,
            now,
        )
        return bool(recorded)

    async def update_failure(self, tx: Transaction, document_id: UUID, failure: str) -> None:
        """Note why a document could not be delivered."""
        await tx.pg.execute(
            _NOTE_FAILURE, tx.scope.tenant_id, tx.scope.livemode, document_id, failure
        )

    async def get_recalculation(self, tx: Transaction, recalculation_id: UUID) -> Recalculation:
        """Return a recalculation with its documents; raises ResourceNotFound."""
        statement = sa.select(_recalculations).where(
            in_scope(_recalculations, tx.scope), _recalculations.c.id == recalculation_id
        )
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="recalculation",
                resource_id=identifiers.to_typeid(identifiers.CALCULATION_RUN, recalculation_id),
            )
        documents = await self._list_documents(tx, [recalculation_id])
        return _to_recalculation(row, documents)

    async def list_recalculations(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        billing_period_id: UUID | None,
    ) -> Page[Recalculation]:
        """Return a page of a subscription's recalculations, oldest first."""
        statement = sa.select(_recalculations).where(
            in_scope(_recalculations, tx.scope),
            _recalculations.c.subscription_id == subscription_id,
        )
        if billing_period_id is not None:
            statement = statement.where(_recalculations.c.billing_period_id == billing_period_id)
        page = page_of(statement, [_recalculations.c.id], request)
        rows = (await tx.sa.execute(page)).mappings().all()
        documents = await self._list_documents(tx, [row["id"] for row in rows])
        return to_page(
            rows,
            request,
            decode=lambda row: _to_recalculation(row, documents),
            key=lambda row: (row["id"],),
        )

    async def _list_documents(
        self, tx: Transaction, recalculation_ids: Sequence[UUID]
    ) -> list[RecalculationDocument]:
        statement = (
            sa.select(_documents)
            .where(
                in_scope(_documents, tx.scope),
                _documents.c.recalculation_id.in_(recalculation_ids),
            )
            .order_by(_documents.c.recalculation_id, _documents.c.position)
        )
        return [_to_document(row) for row in (await tx.sa.execute(statement)).mappings()]


def _to_json(request: DocumentRequest) -> str:
    if isinstance(request, InvoiceRequest):
        return INVOICE_REQUESTS.to_json(request)
    if isinstance(request, CreditNoteRequest):
        return CREDIT_NOTE_REQUESTS.to_json(request)
    return VOID_REQUESTS.to_json(request)


def _from_json(kind: RecalculationDocumentKind, text: str) -> DocumentRequest:
    if kind is RecalculationDocumentKind.INVOICE:
        return INVOICE_REQUESTS.from_json(text)
    if kind is RecalculationDocumentKind.CREDIT_NOTE:
        return CREDIT_NOTE_REQUESTS.from_json(text)
    return VOID_REQUESTS.from_json(text)


def _to_document(row: Row) -> RecalculationDocument:
    return RecalculationDocument(
        id=row["id"],
        recalculation_id=row["recalculation_id"],
        kind=RecalculationDocumentKind(row["kind"]),
        amount_minor=row["amount"],
        currency=row["currency"],
        invoice_id=row["invoice_id"] or "",
        document_id=row["document_id"] or "",
        delivered_at=row["delivered_at"],
        failure="" if row["delivered_at"] is not None else row["failure"] or "",
    )


def _to_recalculation(row: Row, documents: Sequence[RecalculationDocument]) -> Recalculation:
    return Recalculation(
        id=row["id"],
        subscription_id=row["subscription_id"],
        billing_period_id=row["billing_period_id"],
        ledger_transaction_id=row["ledger_transaction_id"],
        currency=row["currency"],
        reason=row["reason"],
        raw_change_minor=row["raw_change_amount"],
        credits_change_minor=row["credits_change_amount"],
        net_change_minor=row["net_change_amount"],
        recovered_minor=row["recovered_amount"],
        released_minor=row["released_amount"],
        surplus_minor=row["surplus_amount"],
        created_at=row["created_at"],
        documents=tuple(d for d in documents if d.recalculation_id == row["id"]),
    )
