"""Changes of credits by administrators, with sensible defaults."""

import uuid
from typing import Any, NamedTuple

from google.protobuf.field_mask_pb2 import FieldMask

from billing.v1 import credit_pb2, usage_credit_pb2
from tests.factories.client import BillingClient

DECREASE = usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_DECREASE
INCREASE = usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_INCREASE


class Adjusted(NamedTuple):
    """An adjustment, and the credit after it."""

    adjustment: usage_credit_pb2.CreditBalanceAdjustment
    credit: usage_credit_pb2.UsageCredit


async def update_credit(
    client: BillingClient, usage_credit_id: str, *paths: str, **fields: Any
) -> usage_credit_pb2.UsageCredit:
    """Change what the paths name."""
    answer: credit_pb2.UpdateCreditResponse = await client.credits.UpdateCredit(
        credit_pb2.UpdateCreditRequest(
            tenant_id=client.tenant_id,
            usage_credit_id=usage_credit_id,
            update_mask=FieldMask(paths=paths),
            **fields,
        )
    )
    return answer.usage_credit


async def void_credit(
    client: BillingClient, usage_credit_id: str, **fields: Any
) -> usage_credit_pb2.UsageCredit:
    """Take what is left of a credit."""
    request = credit_pb2.VoidCreditRequest(
        **{
            "tenant_id": client.tenant_id,
            "usage_credit_id": usage_credit_id,
            "reason": "granted by mistake",
            "voided_by_user_id": "ada",
            "request_id": uuid.uuid4().hex,
            **fields,
        }
    )
    answer: credit_pb2.VoidCreditResponse = await client.credits.VoidCredit(request)
    return answer.usage_credit


async def adjust_credit(
    client: BillingClient, usage_credit_id: str, change: int, **fields: Any
) -> Adjusted:
    """Add to the value of a credit in dollars, or take from it."""
    request = credit_pb2.AdjustCreditBalanceRequest(
        **{
            "tenant_id": client.tenant_id,
            "usage_credit_id": usage_credit_id,
            "adjustment_type": usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_TYPE_ADMIN_REDUCTION,
            "direction": INCREASE if change > 0 else DECREASE,
            "amount": abs(change),
            "currency": "USD",
            "reason": "the wrong amount",
            "adjusted_by_user_id": "ada",
            "request_id": uuid.uuid4().hex,
            **fields,
        }
    )
    answer: credit_pb2.AdjustCreditBalanceResponse = await client.credits.AdjustCreditBalance(
        request
    )
    return Adjusted(answer.credit_balance_adjustment, answer.usage_credit)


async def adjustments_page(
    client: BillingClient, usage_credit_id: str, **fields: Any
) -> tuple[list[usage_credit_pb2.CreditBalanceAdjustment], str]:
    """Return a page of the adjustments of a credit, and the token of the next."""
    answer: credit_pb2.ListCreditBalanceAdjustmentsResponse = (
        await client.credits.ListCreditBalanceAdjustments(
            credit_pb2.ListCreditBalanceAdjustmentsRequest(
                tenant_id=client.tenant_id, usage_credit_id=usage_credit_id, **fields
            )
        )
    )
    return list(answer.credit_balance_adjustments), answer.next_page_token


async def adjustments_of(
    client: BillingClient, usage_credit_id: str
) -> list[usage_credit_pb2.CreditBalanceAdjustment]:
    """Return the adjustments of a credit, oldest first."""
    rows, token = await adjustments_page(client, usage_credit_id, page_size=1000)
    assert token == ""
    return rows
