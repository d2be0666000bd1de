"""Payments and refunds."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from billing.domain import identifiers
from billing.domain.credit_errors import GatewayRefundTaken, ProcessorTransactionTaken
from billing.domain.errors import ResourceNotFound
from billing.domain.pages import Page, PageRequest
from billing.domain.payments import (
    Payment,
    PaymentPurpose,
    PaymentStatus,
    Refund,
    RefundCreditPolicy,
    RefundStatus,
)
from billing.store import tables
from billing.store.database import Transaction, violates
from billing.store.statements import Row, in_scope, page_of, scope_values, to_page

_payments = tables.payments
_refunds = tables.refunds
_applications = tables.usage_credit_applications
_entries = tables.ledger_entries

_PROCESSOR_TRANSACTION_KEY: Final = "uq_payments_processor_transaction"
_GATEWAY_REFUND_KEY: Final = "uq_refunds_gateway_refund"


class PaymentStore:
    """Reads and writes ``payments``."""

    async def insert_payment(self, tx: Transaction, payment: Payment) -> None:
        """Write a new payment."""
        await tx.sa.execute(
            sa.insert(_payments).values(
                **scope_values(tx.scope),
                id=payment.id,
                subscription_id=payment.subscription_id,
                purpose=payment.purpose,
                amount=payment.amount_minor,
                currency=payment.currency,
                billing_period_id=payment.billing_period_id,
                metadata=dict(payment.metadata) or sa.null(),
                created_at=payment.created_at,
                **_changing(payment),
            )
        )

    async def update_payment(self, tx: Transaction, payment: Payment) -> None:
        """Write how far a pending payment got.

        Raises ProcessorTransactionTaken where another payment has the processor's id.
        """
        try:
            await tx.sa.execute(
                sa.update(_payments)
                .where(in_scope(_payments, tx.scope), _payments.c.id == payment.id)
                .values(_changing(payment))
            )
        except IntegrityError as error:
            if violates(error, _PROCESSOR_TRANSACTION_KEY):
                raise ProcessorTransactionTaken(
                    payment_id=payment.typeid,
                    processor_transaction_id=payment.processor_transaction_id,
                ) from error
            raise

    async def get_payment(self, tx: Transaction, payment_id: UUID) -> Payment:
        """Return a payment; raises ResourceNotFound. Under its subscription's lock it is fresh."""
        statement = _payments_with_sums(tx).where(_payments.c.id == payment_id)
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="payment",
                resource_id=identifiers.to_typeid(identifiers.PAYMENT, payment_id),
            )
        return _to_payment(row)

    async def list_payments(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        status: PaymentStatus | None,
        billing_period_id: UUID | None,
    ) -> Page[Payment]:
        """Return a page of a subscription's payments, oldest first."""
        statement = _payments_with_sums(tx).where(_payments.c.subscription_id == subscription_id)
        if status is not None:
            statement = statement.where(_payments.c.status == status)
        if billing_period_id is not None:
            statement = statement.where(_payments.c.billing_period_id == billing_period_id)
        rows = (await tx.sa.execute(page_of(statement, [_payments.c.id], request))).mappings().all()
        return to_page(rows, request, decode=_to_payment, key=lambda row: (row["id"],))


class RefundStore:
    """Reads and writes ``refunds``."""

    async def insert_refund(self, tx: Transaction, refund: Refund) -> None:
        """Write a new refund; the database refuses more than the payment has left."""
        await tx.sa.execute(
            sa.insert(_refunds).values(
                **scope_values(tx.scope),
                id=refund.id,
                payment_id=refund.payment_id,
                subscription_id=refund.subscription_id,
                amount=refund.amount_minor,
                currency=refund.currency,
                reason=refund.reason or None,
                credit_policy=refund.credit_policy,
                reversed_amount=refund.reversed_minor,
                deficit_amount=refund.deficit_minor,
                notes=refund.notes or None,
                initiated_by_user_id=refund.initiated_by_user_id or None,
                ledger_transaction_id=refund.ledger_transaction_id,
                created_at=refund.created_at,
                **_progress(refund),
            )
        )

    async def update_refund(self, tx: Transaction, refund: Refund) -> None:
        """Write how far a pending refund got.

        Raises GatewayRefundTaken where another refund has the processor's id.
        """
        try:
            await tx.sa.execute(
                sa.update(_refunds)
                .where(in_scope(_refunds, tx.scope), _refunds.c.id == refund.id)
                .values(_progress(refund))
            )
        except IntegrityError as error:
            if violates(error, _GATEWAY_REFUND_KEY):
                raise GatewayRefundTaken(
                    refund_id=refund.typeid, gateway_refund_id=refund.gateway_refund_id
                ) from error
            raise

    async def get_refund(self, tx: Transaction, refund_id: UUID) -> Refund:
        """Return a refund; raises ResourceNotFound. Under its subscription's lock it is fresh."""
        statement = sa.select(_refunds).where(
            in_scope(_refunds, tx.scope), _refunds.c.id == refund_id
        )
        row = (await tx.sa.execute(statement)).mappings().one_or_none()
        if row is None:
            raise ResourceNotFound(
                kind="refund", resource_id=identifiers.to_typeid(identifiers.REFUND, refund_id)
            )
        return _to_refund(row)

    async def list_pending_of_credit(self, tx: Transaction, usage_credit_id: UUID) -> list[Refund]:
        """Return the pending refunds of the payment that made a credit, oldest first."""
        rows = await tx.sa.execute(
            sa.select(_refunds)
            .join(
                _payments,
                sa.and_(in_scope(_payments, tx.scope), _payments.c.id == _refunds.c.payment_id),
            )
            .where(
                in_scope(_refunds, tx.scope),
                _refunds.c.status == RefundStatus.PENDING,
                _payments.c.usage_credit_id == usage_credit_id,
            )
            .order_by(_refunds.c.id)
        )
        return [_to_refund(row) for row in rows.mappings()]

    async def list_refunds(
        self,
        tx: Transaction,
        request: PageRequest,
        *,
        subscription_id: UUID,
        payment_id: UUID | None,
        status: RefundStatus | None,
    ) -> Page[Refund]:
        """Return a page of a subscription's refunds, oldest first."""
        statement = sa.select(_refunds).where(
            in_scope(_refunds, tx.scope), _refunds.c.subscription_id == subscription_id
        )
        if payment_id is not None:
            statement = statement.where(_refunds.c.payment_id == payment_id)
        if status is not None:
            statement = statement.where(_refunds.c.status == status)
        rows = (await tx.sa.execute(page_of(statement, [_refunds.c.id], request))).mappings().all()
        return to_page(rows, request, decode=_to_refund, key=lambda row: (row["id"],))


def _changing(payment: Payment) -> dict[str, Any]:
    """The columns of a payment that have a life."""
    details: Mapping[str, str] = payment.payment_method_details
    return {
        "status": payment.status,
        "invoice_id": payment.invoice_id or None,
        "payment_method_details": dict(details) or sa.null(),
        "processor_transaction_id": payment.processor_transaction_id or None,
        "processed_at": payment.processed_at,
        "failure_reason": payment.failure_reason or None,
        "usage_credit_id": payment.usage_credit_id,
        "updated_at": payment.updated_at,
    }


def _progress(refund: Refund) -> dict[str, Any]:
    """The columns of a refund that have a life."""
    return {
        "status": refund.status,
        "clawed_back_amount": refund.clawed_back_minor,
        "refund_processed_at": refund.refund_processed_at,
        "gateway_refund_id": refund.gateway_refund_id or None,
        "failure_reason": refund.failure_reason or None,
        "updated_at": refund.updated_at,
    }


def _payments_with_sums(tx: Transaction) -> sa.Select[Any]:
    refunded = (
        sa.select(sa.func.coalesce(sa.func.sum(_refunds.c.amount), 0))
        .where(
            in_scope(_refunds, tx.scope),
            _refunds.c.payment_id == _payments.c.id,
            _refunds.c.status != RefundStatus.FAILED,
        )
        .scalar_subquery()
    )
    of_credit = sa.and_(
        in_scope(_applications, tx.scope),
        _applications.c.usage_credit_id == _payments.c.usage_credit_id,
        _applications.c.kind == sa.literal_column("'settlement'"),
    )
    settled = (
        sa.select(sa.func.coalesce(sa.func.sum(_applications.c.amount_applied), 0))
        .where(of_credit)
        .scalar_subquery()
    )
    # A reversal's amount is negative.
    reversed_ = (
        sa.select(sa.func.coalesce(sa.func.sum(_entries.c.amount), 0))
        .select_from(_applications)
        .join(
            _entries,
            sa.and_(
                in_scope(_entries, tx.scope),
                _entries.c.source_credit_application_id == _applications.c.id,
                _entries.c.entry_type == sa.literal_column("'credit_application_reversed'"),
                _entries.c.status == sa.literal_column("'posted'"),
            ),
        )
        .where(of_credit)
        .scalar_subquery()
    )
    return sa.select(
        _payments,
        refunded.label("refunded_amount"),
        (settled + reversed_).label("settled_amount"),
    ).where(in_scope(_payments, tx.scope))


def _to_payment(row: Row) -> Payment:
    return Payment(
        id=row["id"],
        subscription_id=row["subscription_id"],
        purpose=PaymentPurpose(row["purpose"]),
        amount_minor=row["amount"],
        currency=row["currency"],
        status=PaymentStatus(row["status"]),
        billing_period_id=row["billing_period_id"],
        invoice_id=row["invoice_id"] or "",
        payment_method_details=row["payment_method_details"] or {},
        processor_transaction_id=row["processor_transaction_id"] or "",
        processed_at=row["processed_at"],
        failure_reason=row["failure_reason"] or "",
        usage_credit_id=row["usage_credit_id"],
        settled_minor=int(row["settled_amount"]),
        refunded_minor=int(row["refunded_amount"]),
        metadata=row["metadata"] or {},
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _to_refund(row: Row) -> Refund:
    return Refund(
        id=row["id"],
        payment_id=row["payment_id"],
        subscription_id=row["subscription_id"],
        amount_minor=row["amount"],
        currency=row["currency"],
        reason=row["reason"] or "",
        status=RefundStatus(row["status"]),
        credit_policy=RefundCreditPolicy(row["credit_policy"]),
        clawed_back_minor=row["clawed_back_amount"],
        reversed_minor=row["reversed_amount"],
        deficit_minor=row["deficit_amount"],
        refund_processed_at=row["refund_processed_at"],
        gateway_refund_id=row["gateway_refund_id"] or "",
        failure_reason=row["failure_reason"] or "",
        notes=row["notes"] or "",
        initiated_by_user_id=row["initiated_by_user_id"] or "",
        ledger_transaction_id=row["ledger_transaction_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )
