"""What the demonstration asks of the service to put a billing period right, over gRPC."""

from collections.abc import Sequence
from typing import Final

import grpc.aio

from billing.v1 import (
    calculation_pb2,
    calculation_pb2_grpc,
    charge_pb2,
    explanation_pb2,
    ledger_pb2,
    ledger_pb2_grpc,
    ledger_statement_pb2,
    usage_correction_pb2,
    usage_pb2,
    usage_pb2_grpc,
)

_PAGE_SIZE: Final = 1_000


class CorrectionClient:
    """One tenant's caller of corrections, recalculations and statements."""

    def __init__(
        self, tenant_id: str, metadata: Sequence[tuple[str, str]], api: grpc.aio.Channel
    ) -> None:
        self._tenant_id = tenant_id
        self._metadata = metadata
        self._usage = usage_pb2_grpc.UsageServiceStub(api)
        self._calculations = calculation_pb2_grpc.CalculationServiceStub(api)
        self._ledger = ledger_pb2_grpc.LedgerServiceStub(api)

    async def find_event(
        self, subscription_id: str, billing_period_id: str, *, idempotency_key: str
    ) -> usage_pb2.UsageEvent | None:
        """Return the event of a billing period that its sender knows by a key."""
        page_token = ""
        while True:
            answer = await self._usage.ListUsageEvents(
                usage_pb2.ListUsageEventsRequest(
                    tenant_id=self._tenant_id,
                    subscription_id=subscription_id,
                    billing_period_id=billing_period_id,
                    page_size=_PAGE_SIZE,
                    page_token=page_token,
                ),
                metadata=self._metadata,
            )
            for event in answer.usage_events:
                if event.idempotency_key == idempotency_key:
                    return event
            page_token = answer.next_page_token
            if not page_token:
                return None

    async def void_event(
        self, usage_event_id: str, *, reason: str
    ) -> usage_correction_pb2.UsageEventCorrection:
        """Take an event out."""
        answer = await self._usage.VoidUsageEvent(
            usage_correction_pb2.VoidUsageEventRequest(
                tenant_id=self._tenant_id,
                usage_event_id=usage_event_id,
                reason=reason,
                request_id=f"void-{usage_event_id}",
            ),
            metadata=self._metadata,
        )
        return answer.correction

    async def recalculate(
        self, subscription_id: str, billing_period_id: str, *, reason: str, request_id: str
    ) -> calculation_pb2.RecalculateBillingPeriodResponse:
        """Calculate a billing period anew."""
        return await self._calculations.RecalculateBillingPeriod(
            calculation_pb2.RecalculateBillingPeriodRequest(
                tenant_id=self._tenant_id,
                subscription_id=subscription_id,
                billing_period_id=billing_period_id,
                reason=reason,
                request_id=request_id,
            ),
            metadata=self._metadata,
        )

    async def list_charges(
        self, subscription_id: str, billing_period_id: str
    ) -> list[charge_pb2.Charge]:
        """Return the lines of a billing period's invoices."""
        answer = await self._ledger.ListCharges(
            charge_pb2.ListChargesRequest(
                tenant_id=self._tenant_id,
                subscription_id=subscription_id,
                billing_period_id=billing_period_id,
                page_size=_PAGE_SIZE,
            ),
            metadata=self._metadata,
        )
        return list(answer.charges)

    async def explain_charge(
        self, charge_id: str, *, event_count: int
    ) -> explanation_pb2.ChargeExplanation:
        """Explain an invoice line, with its first usage events."""
        answer = await self._ledger.ExplainCharge(
            explanation_pb2.ExplainChargeRequest(
                tenant_id=self._tenant_id, charge_id=charge_id, page_size=event_count
            ),
            metadata=self._metadata,
        )
        return answer.explanation

    async def get_statement(
        self, subscription_id: str, billing_period_id: str
    ) -> ledger_pb2.GetStatementResponse:
        """Return the statement of a billing period with all its movements."""
        statement = ledger_pb2.GetStatementResponse()
        while True:
            answer = await self._ledger.GetStatement(
                ledger_statement_pb2.GetStatementRequest(
                    tenant_id=self._tenant_id,
                    subscription_id=subscription_id,
                    billing_period_id=billing_period_id,
                    page_size=_PAGE_SIZE,
                    page_token=statement.next_page_token,
                ),
                metadata=self._metadata,
            )
            movements = [*statement.movements, *answer.movements]
            statement.CopyFrom(answer)
            del statement.movements[:]
            statement.movements.extend(movements)
            if not answer.next_page_token:
                return statement
