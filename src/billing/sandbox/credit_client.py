"""What the demonstration asks of the service about credits, payments and refunds, over gRPC."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import (
    credit_pb2,
    credit_pb2_grpc,
    payment_pb2,
    payment_pb2_grpc,
    refund_pb2,
    usage_credit_pb2,
)

_PAGE_SIZE: Final = 1_000


class CreditClient:
    """One tenant's caller of credits, payments and refunds; amounts in minor units.

    References are the caller's own: the request ids of what moves money are made of them.
    """

    def __init__(
        self, tenant_id: str, metadata: Sequence[tuple[str, str]], api: grpc.aio.Channel
    ) -> None:
        self._tenant_id = tenant_id
        self._metadata = metadata
        self._credits = credit_pb2_grpc.CreditServiceStub(api)
        self._payments = payment_pb2_grpc.PaymentServiceStub(api)

    async def grant(
        self,
        subscription_id: str,
        credit_type: usage_credit_pb2.UsageCreditType.ValueType,
        amount: int,
        currency: str,
        *,
        reference: str,
        effective_at: datetime | None = None,
        expires_at: datetime | None = None,
        covers_charges: bool = False,
    ) -> usage_credit_pb2.UsageCredit:
        """Grant a credit; in effect at once and for ever, unless told otherwise."""
        answer = await self._credits.GrantCredit(
            credit_pb2.GrantCreditRequest(
                tenant_id=self._tenant_id,
                subscription_id=subscription_id,
                credit_type=credit_type,
                amount=amount,
                currency=currency,
                effective_at=_timestamp(effective_at),
                expires_at=_timestamp(expires_at),
                covers_charges=covers_charges,
                source_reference_id=reference,
                request_id=f"grant-{reference}",
            ),
            metadata=self._metadata,
        )
        return answer.usage_credit

    async def list_credits(self, subscription_id: str) -> list[usage_credit_pb2.UsageCredit]:
        """Return the credits of a subscription."""
        answer = await self._credits.ListCredits(
            credit_pb2.ListCreditsRequest(
                tenant_id=self._tenant_id, subscription_id=subscription_id, page_size=_PAGE_SIZE
            ),
            metadata=self._metadata,
        )
        return list(answer.usage_credits)

    async def list_applications(
        self, subscription_id: str
    ) -> list[usage_credit_pb2.CreditApplication]:
        """Return where the credits of a subscription went."""
        answer = await self._credits.ListCreditApplications(
            credit_pb2.ListCreditApplicationsRequest(
                tenant_id=self._tenant_id, subscription_id=subscription_id, page_size=_PAGE_SIZE
            ),
            metadata=self._metadata,
        )
        return list(answer.credit_applications)

    async def expire(self) -> credit_pb2.ExpireCreditsResponse:
        """Expire the tenant's credits whose time is over."""
        return await self._credits.ExpireCredits(
            credit_pb2.ExpireCreditsRequest(tenant_id=self._tenant_id), metadata=self._metadata
        )

    async def pay(
        self,
        subscription_id: str,
        amount: int,
        currency: str,
        *,
        reference: str,
        billing_period_id: str = "",
    ) -> payment_pb2.Payment:
        """Pay a billing period, or top up without one, and tell that the processor has it."""
        created = await self._payments.CreatePayment(
            payment_pb2.CreatePaymentRequest(
                tenant_id=self._tenant_id,
                subscription_id=subscription_id,
                purpose=(
                    payment_pb2.PAYMENT_PURPOSE_PERIOD_SETTLEMENT
                    if billing_period_id
                    else payment_pb2.PAYMENT_PURPOSE_TOP_UP
                ),
                amount=amount,
                currency=currency,
                billing_period_id=billing_period_id,
                request_id=f"pay-{reference}",
            ),
            metadata=self._metadata,
        )
        confirmed = await self._payments.ConfirmPayment(
            payment_pb2.ConfirmPaymentRequest(
                tenant_id=self._tenant_id,
                payment_id=created.payment.id,
                processor_transaction_id=reference,
                request_id=f"confirm-{reference}",
            ),
            metadata=self._metadata,
        )
        return confirmed.payment

    async def begin_refund(
        self, payment_id: str, amount: int, currency: str, *, reference: str
    ) -> refund_pb2.Refund:
        """Begin a refund that takes back what is unused."""
        answer = await self._payments.CreateRefund(
            refund_pb2.CreateRefundRequest(
                tenant_id=self._tenant_id,
                payment_id=payment_id,
                amount=amount,
                currency=currency,
                credit_policy=refund_pb2.REFUND_CREDIT_POLICY_REVERT_UNUSED,
                request_id=f"refund-{reference}",
            ),
            metadata=self._metadata,
        )
        return answer.refund

    async def confirm_refund(self, refund_id: str, *, reference: str) -> refund_pb2.Refund:
        """Tell that the processor has sent the money back."""
        answer = await self._payments.ConfirmRefund(
            refund_pb2.ConfirmRefundRequest(
                tenant_id=self._tenant_id,
                refund_id=refund_id,
                gateway_refund_id=reference,
                request_id=f"confirm-{reference}",
            ),
            metadata=self._metadata,
        )
        return answer.refund


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message
