"""PaymentService."""

from uuid import UUID

from billing.api.converters import payments as convert
from billing.api.converters.values import (
    decode_id,
    decode_optional_id,
    decode_stored_time,
    idempotent_request,
)
from billing.api.converters.write_offs import encode_write_off
from billing.api.page_tokens import next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.services.payments import PaymentService
from billing.services.refunds import RefundService
from billing.services.write_offs import WriteOffService
from billing.v1 import payment_pb2 as pb
from billing.v1 import payment_pb2_grpc, refund_pb2, write_off_pb2


class PaymentServicer(payment_pb2_grpc.PaymentServiceServicer):
    """Keeps payments, refunds and write-offs."""

    def __init__(
        self, payments: PaymentService, refunds: RefundService, write_offs: WriteOffService
    ) -> None:
        self._payments = payments
        self._refunds = refunds
        self._write_offs = write_offs

    async def CreatePayment(
        self, request: pb.CreatePaymentRequest, context: Context
    ) -> pb.CreatePaymentResponse:
        """Record a payment that was begun."""
        payment = await self._payments.create_payment(
            current_scope(request),
            convert.decode_payment_terms(request),
            request=idempotent_request(request, "CreatePayment"),
        )
        return pb.CreatePaymentResponse(payment=convert.encode_payment(payment))

    async def ConfirmPayment(
        self, request: pb.ConfirmPaymentRequest, context: Context
    ) -> pb.ConfirmPaymentResponse:
        """Confirm a payment."""
        payment = await self._payments.confirm_payment(
            current_scope(request),
            _payment_id(request.payment_id),
            processor_transaction_id=request.processor_transaction_id,
            processed_at=decode_stored_time(request, "processed_at"),
            payment_method_details=dict(request.payment_method_details),
            request=idempotent_request(request, "ConfirmPayment"),
        )
        return pb.ConfirmPaymentResponse(payment=convert.encode_payment(payment))

    async def FailPayment(
        self, request: pb.FailPaymentRequest, context: Context
    ) -> pb.FailPaymentResponse:
        """Note that a payment failed."""
        payment = await self._payments.fail_payment(
            current_scope(request),
            _payment_id(request.payment_id),
            failure_reason=request.failure_reason,
            request=idempotent_request(request, "FailPayment"),
        )
        return pb.FailPaymentResponse(payment=convert.encode_payment(payment))

    async def GetPayment(
        self, request: pb.GetPaymentRequest, context: Context
    ) -> pb.GetPaymentResponse:
        """Return one payment."""
        payment = await self._payments.get_payment(
            current_scope(request), _payment_id(request.payment_id)
        )
        return pb.GetPaymentResponse(payment=convert.encode_payment(payment))

    async def ListPayments(
        self, request: pb.ListPaymentsRequest, context: Context
    ) -> pb.ListPaymentsResponse:
        """List the payments of a subscription."""
        page = await self._payments.list_payments(
            current_scope(request),
            page_request(request),
            subscription_id=_subscription_id(request.subscription_id),
            status=convert.status.decode_filter(request.status),
            billing_period_id=decode_optional_id(
                identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
            ),
        )
        return pb.ListPaymentsResponse(
            payments=[convert.encode_payment(payment) for payment in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def CreateRefund(
        self, request: refund_pb2.CreateRefundRequest, context: Context
    ) -> refund_pb2.CreateRefundResponse:
        """Begin a refund."""
        refund = await self._refunds.create_refund(
            current_scope(request),
            convert.decode_refund_terms(request),
            request=idempotent_request(request, "CreateRefund"),
        )
        return refund_pb2.CreateRefundResponse(refund=convert.encode_refund(refund))

    async def ConfirmRefund(
        self, request: refund_pb2.ConfirmRefundRequest, context: Context
    ) -> refund_pb2.ConfirmRefundResponse:
        """Confirm a refund."""
        refund = await self._refunds.confirm_refund(
            current_scope(request),
            _refund_id(request.refund_id),
            gateway_refund_id=request.gateway_refund_id,
            refund_processed_at=decode_stored_time(request, "refund_processed_at"),
            request=idempotent_request(request, "ConfirmRefund"),
        )
        return refund_pb2.ConfirmRefundResponse(refund=convert.encode_refund(refund))

    async def FailRefund(
        self, request: refund_pb2.FailRefundRequest, context: Context
    ) -> refund_pb2.FailRefundResponse:
        """Note that a refund failed."""
        refund = await self._refunds.fail_refund(
            current_scope(request),
            _refund_id(request.refund_id),
            failure_reason=request.failure_reason,
            request=idempotent_request(request, "FailRefund"),
        )
        return refund_pb2.FailRefundResponse(refund=convert.encode_refund(refund))

    async def GetRefund(
        self, request: refund_pb2.GetRefundRequest, context: Context
    ) -> refund_pb2.GetRefundResponse:
        """Return one refund."""
        refund = await self._refunds.get_refund(
            current_scope(request), _refund_id(request.refund_id)
        )
        return refund_pb2.GetRefundResponse(refund=convert.encode_refund(refund))

    async def ListRefunds(
        self, request: refund_pb2.ListRefundsRequest, context: Context
    ) -> refund_pb2.ListRefundsResponse:
        """List the refunds of a subscription."""
        page = await self._refunds.list_refunds(
            current_scope(request),
            page_request(request),
            subscription_id=_subscription_id(request.subscription_id),
            payment_id=decode_optional_id(identifiers.PAYMENT, request.payment_id, "payment_id"),
            status=convert.refund_status.decode_filter(request.status),
        )
        return refund_pb2.ListRefundsResponse(
            refunds=[convert.encode_refund(refund) for refund in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def WriteOffReceivable(
        self, request: write_off_pb2.WriteOffReceivableRequest, context: Context
    ) -> write_off_pb2.WriteOffReceivableResponse:
        """Give up what a billing period owes."""
        write_off = await self._write_offs.write_off_receivable(
            current_scope(request),
            _subscription_id(request.subscription_id),
            decode_id(identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"),
            amount_minor=request.amount,
            currency=request.currency,
            reason=request.reason,
            written_off_by_user_id=request.written_off_by_user_id,
            request=idempotent_request(request, "WriteOffReceivable"),
        )
        return write_off_pb2.WriteOffReceivableResponse(write_off=encode_write_off(write_off))

    async def RecoverWriteOff(
        self, request: write_off_pb2.RecoverWriteOffRequest, context: Context
    ) -> write_off_pb2.RecoverWriteOffResponse:
        """Let a write-off be owed again."""
        write_off = await self._write_offs.recover_write_off(
            current_scope(request),
            _write_off_id(request.write_off_id),
            amount_minor=request.amount,
            request=idempotent_request(request, "RecoverWriteOff"),
        )
        return write_off_pb2.RecoverWriteOffResponse(write_off=encode_write_off(write_off))

    async def GetWriteOff(
        self, request: write_off_pb2.GetWriteOffRequest, context: Context
    ) -> write_off_pb2.GetWriteOffResponse:
        """Return one write-off."""
        write_off = await self._write_offs.get_write_off(
            current_scope(request), _write_off_id(request.write_off_id)
        )
        return write_off_pb2.GetWriteOffResponse(write_off=encode_write_off(write_off))

    async def ListWriteOffs(
        self, request: write_off_pb2.ListWriteOffsRequest, context: Context
    ) -> write_off_pb2.ListWriteOffsResponse:
        """List the write-offs of a subscription."""
        page = await self._write_offs.list_write_offs(
            current_scope(request),
            page_request(request),
            subscription_id=_subscription_id(request.subscription_id),
            billing_period_id=decode_optional_id(
                identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
            ),
        )
        return write_off_pb2.ListWriteOffsResponse(
            write_offs=[encode_write_off(write_off) for write_off in page.items],
            next_page_token=next_page_token(page, request),
        )


def _write_off_id(write_off_id: str) -> UUID:
    return decode_id(identifiers.WRITE_OFF, write_off_id, "write_off_id")


def _subscription_id(subscription_id: str) -> UUID:
    return decode_id(identifiers.SUBSCRIPTION, subscription_id, "subscription_id")


def _payment_id(payment_id: str) -> UUID:
    return decode_id(identifiers.PAYMENT, payment_id, "payment_id")


def _refund_id(refund_id: str) -> UUID:
    return decode_id(identifiers.REFUND, refund_id, "refund_id")
