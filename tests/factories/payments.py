"""What of payments and refunds ``credits.py`` does not have: failures, lists, single ones."""

import uuid
from typing import Any

from billing.v1 import payment_pb2, refund_pb2
from tests.factories.client import BillingClient


async def fail_payment(
    client: BillingClient, payment_id: str, **fields: Any
) -> payment_pb2.Payment:
    """Note that a payment failed."""
    request = payment_pb2.FailPaymentRequest(
        **{
            "tenant_id": client.tenant_id,
            "payment_id": payment_id,
            "failure_reason": "card_declined",
            "request_id": uuid.uuid4().hex,
            **fields,
        }
    )
    answer: payment_pb2.FailPaymentResponse = await client.payments.FailPayment(request)
    return answer.payment


async def get_payment(client: BillingClient, payment_id: str) -> payment_pb2.Payment:
    """Return a payment."""
    answer: payment_pb2.GetPaymentResponse = await client.payments.GetPayment(
        payment_pb2.GetPaymentRequest(tenant_id=client.tenant_id, payment_id=payment_id)
    )
    return answer.payment


async def payments_page(
    client: BillingClient, subscription_id: str, **fields: Any
) -> tuple[list[payment_pb2.Payment], str]:
    """Return a page of the payments of a subscription, and the token of the next."""
    answer: payment_pb2.ListPaymentsResponse = await client.payments.ListPayments(
        payment_pb2.ListPaymentsRequest(
            tenant_id=client.tenant_id, subscription_id=subscription_id, **fields
        )
    )
    return list(answer.payments), answer.next_page_token


async def payments_of(
    client: BillingClient, subscription_id: str, **filters: Any
) -> list[payment_pb2.Payment]:
    """Return the payments of a subscription, oldest first."""
    rows, token = await payments_page(client, subscription_id, page_size=1000, **filters)
    assert token == ""
    return rows


async def get_refund(client: BillingClient, refund_id: str) -> refund_pb2.Refund:
    """Return a refund."""
    answer: refund_pb2.GetRefundResponse = await client.payments.GetRefund(
        refund_pb2.GetRefundRequest(tenant_id=client.tenant_id, refund_id=refund_id)
    )
    return answer.refund


async def refunds_page(
    client: BillingClient, subscription_id: str, **fields: Any
) -> tuple[list[refund_pb2.Refund], str]:
    """Return a page of the refunds of a subscription, and the token of the next."""
    answer: refund_pb2.ListRefundsResponse = await client.payments.ListRefunds(
        refund_pb2.ListRefundsRequest(
            tenant_id=client.tenant_id, subscription_id=subscription_id, **fields
        )
    )
    return list(answer.refunds), answer.next_page_token


async def refunds_of(
    client: BillingClient, subscription_id: str, **filters: Any
) -> list[refund_pb2.Refund]:
    """Return the refunds of a subscription, oldest first."""
    rows, token = await refunds_page(client, subscription_id, page_size=1000, **filters)
    assert token == ""
    return rows
