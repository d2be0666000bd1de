"""Corrections, estimates, recalculations and write-offs, as their caller asks for them."""

import uuid
from typing import Any

from google.type.decimal_pb2 import Decimal

from billing.v1 import calculation_pb2 as pb
from billing.v1 import usage_correction_pb2, usage_pb2, write_off_pb2
from tests.factories.client import BillingClient

ACTIVE = pb.CALCULATION_STATUS_ACTIVE
SUPERSEDED = pb.CALCULATION_STATUS_SUPERSEDED
PENDING_CONFIRMATION = pb.CALCULATION_STATUS_PENDING_CONFIRMATION
DISCARDED = pb.CALCULATION_STATUS_DISCARDED

Correction = usage_correction_pb2.UsageEventCorrection


async def amend(
    client: BillingClient, usage_event_id: str, quantity: str, **fields: Any
) -> Correction:
    """Tell the right quantity of an event."""
    answer = await client.usage.AmendUsageEvent(
        usage_correction_pb2.AmendUsageEventRequest(
            **{
                "tenant_id": client.tenant_id,
                "usage_event_id": usage_event_id,
                "quantity": Decimal(value=quantity),
                "reason": "counted wrongly",
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )
    return answer.correction  # type: ignore[no-any-return]


async def void_event(client: BillingClient, usage_event_id: str, **fields: Any) -> Correction:
    """Take an event out."""
    answer = await client.usage.VoidUsageEvent(
        usage_correction_pb2.VoidUsageEventRequest(
            **{
                "tenant_id": client.tenant_id,
                "usage_event_id": usage_event_id,
                "reason": "sent by a test",
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )
    return answer.correction  # type: ignore[no-any-return]


async def corrections_of(client: BillingClient, usage_event_id: str) -> list[Correction]:
    """Return the corrections of an event, oldest first."""
    answer = await client.usage.ListUsageEventCorrections(
        usage_correction_pb2.ListUsageEventCorrectionsRequest(
            tenant_id=client.tenant_id, usage_event_id=usage_event_id, page_size=1000
        )
    )
    return list(answer.corrections)


async def usage_event_of(client: BillingClient, usage_event_id: str) -> usage_pb2.UsageEvent:
    """Return a stored event."""
    request = usage_pb2.GetUsageEventRequest(
        tenant_id=client.tenant_id, usage_event_id=usage_event_id
    )
    return (await client.usage.GetUsageEvent(request)).usage_event  # type: ignore[no-any-return]


async def estimate(client: BillingClient, subscription_id: str, **fields: Any) -> pb.Estimate:
    """Estimate the current billing period."""
    answer = await client.calculations.EstimateBillingPeriod(
        pb.EstimateBillingPeriodRequest(
            **{
                "tenant_id": client.tenant_id,
                "subscription_id": subscription_id,
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )
    return answer.estimate  # type: ignore[no-any-return]


async def recalculate(
    client: BillingClient, subscription_id: str, billing_period_id: str, /, **fields: Any
) -> pb.RecalculateBillingPeriodResponse:
    """Calculate a billing period anew."""
    return await client.calculations.RecalculateBillingPeriod(  # type: ignore[no-any-return]
        pb.RecalculateBillingPeriodRequest(
            **{
                "tenant_id": client.tenant_id,
                "subscription_id": subscription_id,
                "billing_period_id": billing_period_id,
                "reason": "usage was wrong",
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )


async def calculations_of(
    client: BillingClient, subscription_id: str, **filters: Any
) -> list[pb.Calculation]:
    """Return the calculations of a subscription, oldest first."""
    answer = await client.calculations.ListCalculations(
        pb.ListCalculationsRequest(
            tenant_id=client.tenant_id,
            subscription_id=subscription_id,
            page_size=1000,
            **filters,
        )
    )
    return list(answer.calculations)


async def get_calculation(client: BillingClient, calculation_id: str) -> pb.GetCalculationResponse:
    """Return a calculation, and what it supersedes."""
    return await client.calculations.GetCalculation(  # type: ignore[no-any-return]
        pb.GetCalculationRequest(tenant_id=client.tenant_id, calculation_id=calculation_id)
    )


async def get_recalculation(client: BillingClient, recalculation_id: str) -> pb.Recalculation:
    """Return a recalculation."""
    answer = await client.calculations.GetRecalculation(
        pb.GetRecalculationRequest(tenant_id=client.tenant_id, recalculation_id=recalculation_id)
    )
    return answer.recalculation  # type: ignore[no-any-return]


async def recalculations_of(
    client: BillingClient, subscription_id: str, **filters: Any
) -> list[pb.Recalculation]:
    """Return the recalculations of a subscription, oldest first."""
    answer = await client.calculations.ListRecalculations(
        pb.ListRecalculationsRequest(
            tenant_id=client.tenant_id,
            subscription_id=subscription_id,
            page_size=1000,
            **filters,
        )
    )
    return list(answer.recalculations)


async def write_off(
    client: BillingClient, subscription_id: str, billing_period_id: str, /, **fields: Any
) -> write_off_pb2.WriteOff:
    """Give up what a billing period owes; all of it unless told otherwise."""
    answer = await client.payments.WriteOffReceivable(
        write_off_pb2.WriteOffReceivableRequest(
            **{
                "tenant_id": client.tenant_id,
                "subscription_id": subscription_id,
                "billing_period_id": billing_period_id,
                "currency": "USD",
                "reason": "insolvent",
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )
    return answer.write_off  # type: ignore[no-any-return]


async def recover(
    client: BillingClient, write_off_id: str, /, **fields: Any
) -> write_off_pb2.WriteOff:
    """Let a write-off be owed again; all of it unless told otherwise."""
    answer = await client.payments.RecoverWriteOff(
        write_off_pb2.RecoverWriteOffRequest(
            **{
                "tenant_id": client.tenant_id,
                "write_off_id": write_off_id,
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )
    return answer.write_off  # type: ignore[no-any-return]


async def get_write_off(client: BillingClient, write_off_id: str) -> write_off_pb2.WriteOff:
    """Return a write-off."""
    answer = await client.payments.GetWriteOff(
        write_off_pb2.GetWriteOffRequest(tenant_id=client.tenant_id, write_off_id=write_off_id)
    )
    return answer.write_off  # type: ignore[no-any-return]


async def write_offs_page(
    client: BillingClient, subscription_id: str, **fields: Any
) -> tuple[list[write_off_pb2.WriteOff], str]:
    """Return a page of the write-offs of a subscription, and the token of the next."""
    answer = await client.payments.ListWriteOffs(
        write_off_pb2.ListWriteOffsRequest(
            tenant_id=client.tenant_id, subscription_id=subscription_id, **fields
        )
    )
    return list(answer.write_offs), answer.next_page_token
