"""Credits, payments and refunds of a client, with sensible defaults."""

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from billing.v1 import credit_pb2, payment_pb2, refund_pb2, usage_credit_pb2
from tests.factories.client import BillingClient, timestamp


async def grant_credit(
    client: BillingClient, subscription_id: str, amount: int, **terms: Any
) -> usage_credit_pb2.UsageCredit:
    """Grant a promotion in dollars; the keywords are the request's fields, times as datetimes."""
    request = credit_pb2.GrantCreditRequest(
        **_fields(
            {
                "tenant_id": client.tenant_id,
                "subscription_id": subscription_id,
                "credit_type": usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_PROMO,
                "amount": amount,
                "currency": "USD",
                "request_id": uuid.uuid4().hex,
                **terms,
            }
        )
    )
    answer: credit_pb2.GrantCreditResponse = await client.credits.GrantCredit(request)
    return answer.usage_credit


async def credit(client: BillingClient, usage_credit_id: str) -> usage_credit_pb2.UsageCredit:
    """Return a credit."""
    answer: credit_pb2.GetCreditResponse = await client.credits.GetCredit(
        credit_pb2.GetCreditRequest(tenant_id=client.tenant_id, usage_credit_id=usage_credit_id)
    )
    return answer.usage_credit


async def credits_of(
    client: BillingClient, subscription_id: str, **filters: Any
) -> list[usage_credit_pb2.UsageCredit]:
    """Return all credits of a subscription, oldest first."""
    request = credit_pb2.ListCreditsRequest(
        tenant_id=client.tenant_id,
        subscription_id=subscription_id,
        page_size=1000,
        **_fields(filters),
    )
    found: list[usage_credit_pb2.UsageCredit] = []
    while True:
        answer: credit_pb2.ListCreditsResponse = await client.credits.ListCredits(request)
        found.extend(answer.usage_credits)
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


async def applications(
    client: BillingClient, subscription_id: str, **filters: Any
) -> list[usage_credit_pb2.CreditApplication]:
    """Return where the credits of a subscription went, oldest first."""
    request = credit_pb2.ListCreditApplicationsRequest(
        tenant_id=client.tenant_id, subscription_id=subscription_id, page_size=1000, **filters
    )
    found: list[usage_credit_pb2.CreditApplication] = []
    while True:
        answer: credit_pb2.ListCreditApplicationsResponse = (
            await client.credits.ListCreditApplications(request)
        )
        found.extend(answer.credit_applications)
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


async def credit_summary(
    client: BillingClient, subscription_id: str
) -> usage_credit_pb2.CreditSummary:
    """Return the credits of a subscription in figures."""
    answer: credit_pb2.GetCreditSummaryResponse = await client.credits.GetCreditSummary(
        credit_pb2.GetCreditSummaryRequest(
            tenant_id=client.tenant_id, subscription_id=subscription_id
        )
    )
    return answer.credit_summary


async def expire_credits(
    client: BillingClient, subscription_id: str | None = None
) -> credit_pb2.ExpireCreditsResponse:
    """Expire credits of a subscription, or of all."""
    answer: credit_pb2.ExpireCreditsResponse = await client.credits.ExpireCredits(
        credit_pb2.ExpireCreditsRequest(
            tenant_id=client.tenant_id, subscription_id=subscription_id or ""
        )
    )
    return answer


async def create_payment(
    client: BillingClient,
    subscription_id: str,
    amount: int,
    *,
    billing_period_id: str | None = None,
    confirm: bool = True,
    **terms: Any,
) -> payment_pb2.Payment:
    """Pay a billing period, or top up without one, in dollars; the keywords are the request's."""
    purpose = (
        payment_pb2.PAYMENT_PURPOSE_PERIOD_SETTLEMENT
        if billing_period_id
        else payment_pb2.PAYMENT_PURPOSE_TOP_UP
    )
    request = payment_pb2.CreatePaymentRequest(
        **{
            "tenant_id": client.tenant_id,
            "subscription_id": subscription_id,
            "purpose": purpose,
            "amount": amount,
            "currency": "USD",
            "billing_period_id": billing_period_id,
            "request_id": uuid.uuid4().hex,
            **terms,
        }
    )
    answer: payment_pb2.CreatePaymentResponse = await client.payments.CreatePayment(request)
    return await confirm_payment(client, answer.payment.id) if confirm else answer.payment


async def confirm_payment(
    client: BillingClient, payment_id: str, **fields: Any
) -> payment_pb2.Payment:
    """Confirm a payment, by default always as the same one of the processor's."""
    request = payment_pb2.ConfirmPaymentRequest(
        **_fields(
            {
                "tenant_id": client.tenant_id,
                "payment_id": payment_id,
                "processor_transaction_id": f"charge-of-{payment_id}",
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )
    answer: payment_pb2.ConfirmPaymentResponse = await client.payments.ConfirmPayment(request)
    return answer.payment


async def create_refund(
    client: BillingClient, payment_id: str, amount: int, **terms: Any
) -> refund_pb2.Refund:
    """Begin a refund in dollars; the keywords are the request's fields."""
    request = refund_pb2.CreateRefundRequest(
        **{
            "tenant_id": client.tenant_id,
            "payment_id": payment_id,
            "amount": amount,
            "currency": "USD",
            "request_id": uuid.uuid4().hex,
            **terms,
        }
    )
    answer: refund_pb2.CreateRefundResponse = await client.payments.CreateRefund(request)
    return answer.refund


async def confirm_refund(client: BillingClient, refund_id: str, **fields: Any) -> refund_pb2.Refund:
    """Confirm a refund, by default always as the same one of the processor's."""
    request = refund_pb2.ConfirmRefundRequest(
        **_fields(
            {
                "tenant_id": client.tenant_id,
                "refund_id": refund_id,
                "gateway_refund_id": f"return-of-{refund_id}",
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )
    answer: refund_pb2.ConfirmRefundResponse = await client.payments.ConfirmRefund(request)
    return answer.refund


async def fail_refund(
    client: BillingClient,
    refund_id: str,
    *,
    failure_reason: str = "the account is closed",
    request_id: str | None = None,
) -> refund_pb2.Refund:
    """Note that a refund failed."""
    answer: refund_pb2.FailRefundResponse = await client.payments.FailRefund(
        refund_pb2.FailRefundRequest(
            tenant_id=client.tenant_id,
            refund_id=refund_id,
            failure_reason=failure_reason,
            request_id=request_id or uuid.uuid4().hex,
        )
    )
    return answer.refund


def _fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request, with times as messages."""
    return {
        name: timestamp(value) if isinstance(value, datetime) else value
        for name, value in fields.items()
    }
