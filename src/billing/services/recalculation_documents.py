"""What a recalculation asks of the invoicing service, word for word."""

from collections.abc import Sequence
from decimal import Decimal
from uuid import UUID

from billing.domain import identifiers
from billing.domain.billing import Charge
from billing.domain.invoices import (
    PAYMENT_TERM,
    CreditNoteRequest,
    InvoiceLineItem,
    InvoiceRequest,
    VoidRequest,
)
from billing.domain.periods import BillingPeriod
from billing.domain.recalculations import Recalculation, RecalculationDocumentKind
from billing.domain.scope import Scope
from billing.domain.subscriptions import Subscription
from billing.store.recalculations import DocumentRequest, NewDocument

PlannedDocument = tuple[RecalculationDocumentKind, int, str]
"""Kind, amount in minor units, and the invoice that it takes back from."""


def to_documents(
    planned: Sequence[PlannedDocument],
    scope: Scope,
    subscription: Subscription,
    period: BillingPeriod,
    recalculation: Recalculation,
    charges: Sequence[Charge],
) -> list[NewDocument]:
    """Return the documents with their requests.

    A single one shows the charges; of several, each shows its part of the correction.
    """
    documents = []
    for kind, amount_minor, invoice_id in planned:
        document_id = identifiers.new_id()
        if len(planned) == 1:
            lines = tuple(
                InvoiceLineItem(c.description, c.quantity, c.unit_price, c.amount_minor)
                for c in charges
            )
        else:
            lines = (_part_of_correction(period, amount_minor),)
        request = _request(
            kind,
            amount_minor,
            invoice_id,
            lines,
            document_id,
            scope,
            subscription,
            period,
            recalculation,
        )
        documents.append(NewDocument(document_id, kind, amount_minor, invoice_id, request))
    return documents


def _part_of_correction(period: BillingPeriod, amount_minor: int) -> InvoiceLineItem:
    span = f"{period.period_start:%Y-%m-%d} to {period.period_end:%Y-%m-%d}"
    return InvoiceLineItem(
        f"Correction of {span}, in part", Decimal(1), Decimal(amount_minor), amount_minor
    )


def _request(
    kind: RecalculationDocumentKind,
    amount_minor: int,
    invoice_id: str,
    lines: tuple[InvoiceLineItem, ...],
    document_id: UUID,
    scope: Scope,
    subscription: Subscription,
    period: BillingPeriod,
    recalculation: Recalculation,
) -> DocumentRequest:
    key = identifiers.to_typeid(identifiers.RECALCULATION_DOCUMENT, document_id)
    issue_date = recalculation.created_at.date()
    if kind is RecalculationDocumentKind.VOID:
        return VoidRequest(key, scope.tenant_id, invoice_id, recalculation.reason)
    if kind is RecalculationDocumentKind.CREDIT_NOTE:
        return CreditNoteRequest(
            idempotency_key=key,
            tenant_id=scope.tenant_id,
            livemode=scope.livemode,
            customer_id=subscription.customer_id,
            currency=subscription.currency,
            invoice_id=invoice_id,
            line_items=lines,
            issue_date=issue_date,
            total_minor=amount_minor,
            reason=recalculation.reason,
            subscription_id=subscription.id,
            period_start=period.period_start,
            period_end=period.period_end,
        )
    return InvoiceRequest(
        idempotency_key=key,
        tenant_id=scope.tenant_id,
        livemode=scope.livemode,
        customer_id=subscription.customer_id,
        currency=subscription.currency,
        line_items=lines,
        issue_date=issue_date,
        due_date=issue_date + PAYMENT_TERM,
        total_minor=amount_minor,
        subscription_id=subscription.id,
        period_start=period.period_start,
        period_end=period.period_end,
    )
