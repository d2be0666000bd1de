"""Payments and refunds."""

from billing.api.converters.values import (
    EnumConverter,
    decode_id,
    decode_optional_id,
    encode_optional_id,
    encode_time,
)
from billing.domain import identifiers
from billing.domain.payments import (
    Payment,
    PaymentPurpose,
    PaymentStatus,
    PaymentTerms,
    Refund,
    RefundCreditPolicy,
    RefundStatus,
    RefundTerms,
)
from billing.v1 import payment_pb2 as pb
from billing.v1 import refund_pb2

purpose = EnumConverter(pb.PaymentPurpose, "PAYMENT_PURPOSE", PaymentPurpose)
status = EnumConverter(pb.PaymentStatus, "PAYMENT_STATUS", PaymentStatus)
refund_status = EnumConverter(refund_pb2.RefundStatus, "REFUND_STATUS", RefundStatus)
credit_policy = EnumConverter(
    refund_pb2.RefundCreditPolicy, "REFUND_CREDIT_POLICY", RefundCreditPolicy
)


def decode_payment_terms(request: pb.CreatePaymentRequest) -> PaymentTerms:
    """Return what a payment is begun with; raises FieldInvalid."""
    return PaymentTerms(
        subscription_id=decode_id(
            identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
        ),
        purpose=purpose.decode(request.purpose),
        amount_minor=request.amount,
        currency=request.currency,
        billing_period_id=decode_optional_id(
            identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
        ),
        invoice_id=request.invoice_id,
        payment_method_details=dict(request.payment_method_details),
        metadata=dict(request.metadata),
    )


def encode_payment(payment: Payment) -> pb.Payment:
    """Return the message of a payment."""
    return pb.Payment(
        id=payment.typeid,
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, payment.subscription_id),
        purpose=purpose.encode(payment.purpose),
        amount=payment.amount_minor,
        currency=payment.currency,
        status=status.encode(payment.status),
        billing_period_id=encode_optional_id(identifiers.BILLING_PERIOD, payment.billing_period_id),
        invoice_id=payment.invoice_id,
        payment_method_details=payment.payment_method_details,
        processor_transaction_id=payment.processor_transaction_id,
        processed_at=encode_time(payment.processed_at),
        failure_reason=payment.failure_reason,
        usage_credit_id=encode_optional_id(identifiers.USAGE_CREDIT, payment.usage_credit_id),
        settled_amount=payment.settled_minor,
        refunded_amount=payment.refunded_minor,
        metadata=payment.metadata,
        created_at=encode_time(payment.created_at),
        updated_at=encode_time(payment.updated_at),
    )


def decode_refund_terms(request: refund_pb2.CreateRefundRequest) -> RefundTerms:
    """Return what a refund is begun with; raises FieldInvalid."""
    return RefundTerms(
        payment_id=decode_id(identifiers.PAYMENT, request.payment_id, "payment_id"),
        amount_minor=request.amount,
        currency=request.currency,
        credit_policy=credit_policy.decode_or(
            request.credit_policy, RefundCreditPolicy.REVERT_UNUSED
        ),
        reason=request.reason,
        notes=request.notes,
        initiated_by_user_id=request.initiated_by_user_id,
    )


def encode_refund(refund: Refund) -> refund_pb2.Refund:
    """Return the message of a refund."""
    return refund_pb2.Refund(
        id=refund.typeid,
        payment_id=identifiers.to_typeid(identifiers.PAYMENT, refund.payment_id),
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, refund.subscription_id),
        amount=refund.amount_minor,
        currency=refund.currency,
        reason=refund.reason,
        status=refund_status.encode(refund.status),
        credit_policy=credit_policy.encode(refund.credit_policy),
        clawed_back_amount=refund.clawed_back_minor,
        reversed_amount=refund.reversed_minor,
        deficit_amount=refund.deficit_minor,
        absorbed_amount=refund.absorbed_minor,
        refund_processed_at=encode_time(refund.refund_processed_at),
        gateway_refund_id=refund.gateway_refund_id,
        failure_reason=refund.failure_reason,
        notes=refund.notes,
        initiated_by_user_id=refund.initiated_by_user_id,
        created_at=encode_time(refund.created_at),
        updated_at=encode_time(refund.updated_at),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, refund.ledger_transaction_id
        ),
    )
