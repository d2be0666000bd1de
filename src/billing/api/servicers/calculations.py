"""CalculationService."""

from uuid import UUID

from billing.api.converters import calculations as convert
from billing.api.converters.values import decode_id, decode_optional_id, idempotent_request
from billing.api.page_tokens import next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.services.calculations import CalculationService
from billing.services.recalculations import RecalculationService
from billing.v1 import calculation_pb2 as pb
from billing.v1 import calculation_pb2_grpc


class CalculationServicer(calculation_pb2_grpc.CalculationServiceServicer):
    """Estimates and recalculates billing periods."""

    def __init__(
        self, calculations: CalculationService, recalculations: RecalculationService
    ) -> None:
        self._calculations = calculations
        self._recalculations = recalculations

    async def EstimateBillingPeriod(
        self, request: pb.EstimateBillingPeriodRequest, context: Context
    ) -> pb.EstimateBillingPeriodResponse:
        """Estimate an open billing period."""
        estimate = await self._calculations.estimate_billing_period(
            current_scope(request),
            _subscription_id(request.subscription_id),
            billing_period_id=_optional_period_id(request.billing_period_id),
            request=idempotent_request(request, "EstimateBillingPeriod"),
        )
        return pb.EstimateBillingPeriodResponse(estimate=convert.encode_estimate(estimate))

    async def RecalculateBillingPeriod(
        self, request: pb.RecalculateBillingPeriodRequest, context: Context
    ) -> pb.RecalculateBillingPeriodResponse:
        """Calculate an invoiced billing period anew."""
        recalculated = await self._recalculations.recalculate_billing_period(
            current_scope(request),
            _subscription_id(request.subscription_id),
            decode_id(identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"),
            reason=request.reason,
            request=idempotent_request(request, "RecalculateBillingPeriod"),
        )
        recalculation = recalculated.recalculation
        return pb.RecalculateBillingPeriodResponse(
            changed=recalculation is not None,
            recalculation=convert.encode_recalculation(recalculation) if recalculation else None,
            calculations=[convert.encode_calculation(c) for c in recalculated.calculations],
        )

    async def GetCalculation(
        self, request: pb.GetCalculationRequest, context: Context
    ) -> pb.GetCalculationResponse:
        """Return one calculation with those that it supersedes."""
        calculation, superseded = await self._calculations.get_calculation(
            current_scope(request),
            decode_id(identifiers.CALCULATION, request.calculation_id, "calculation_id"),
        )
        return pb.GetCalculationResponse(
            calculation=convert.encode_calculation(calculation),
            superseded_calculations=[convert.encode_calculation(c) for c in superseded],
        )

    async def ListCalculations(
        self, request: pb.ListCalculationsRequest, context: Context
    ) -> pb.ListCalculationsResponse:
        """List the calculations of a subscription."""
        page = await self._calculations.list_calculations(
            current_scope(request),
            page_request(request),
            subscription_id=_subscription_id(request.subscription_id),
            billing_period_id=_optional_period_id(request.billing_period_id),
            component_id=decode_optional_id(
                identifiers.COMPONENT, request.component_id, "component_id"
            ),
            status=convert.status.decode_filter(request.status),
        )
        return pb.ListCalculationsResponse(
            calculations=[convert.encode_calculation(c) for c in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def ResolveRecalculationDocument(
        self, request: pb.ResolveRecalculationDocumentRequest, context: Context
    ) -> pb.ResolveRecalculationDocumentResponse:
        """Note that a document was seen to by hand."""
        recalculation = await self._recalculations.resolve_document(
            current_scope(request),
            decode_id(
                identifiers.RECALCULATION_DOCUMENT,
                request.recalculation_document_id,
                "recalculation_document_id",
            ),
            delivered_id=request.document_id,
            request=idempotent_request(request, "ResolveRecalculationDocument"),
        )
        return pb.ResolveRecalculationDocumentResponse(
            recalculation=convert.encode_recalculation(recalculation)
        )

    async def GetRecalculation(
        self, request: pb.GetRecalculationRequest, context: Context
    ) -> pb.GetRecalculationResponse:
        """Return one recalculation."""
        recalculation = await self._recalculations.get_recalculation(
            current_scope(request),
            decode_id(identifiers.CALCULATION_RUN, request.recalculation_id, "recalculation_id"),
        )
        return pb.GetRecalculationResponse(
            recalculation=convert.encode_recalculation(recalculation)
        )

    async def ListRecalculations(
        self, request: pb.ListRecalculationsRequest, context: Context
    ) -> pb.ListRecalculationsResponse:
        """List the recalculations of a subscription."""
        page = await self._recalculations.list_recalculations(
            current_scope(request),
            page_request(request),
            subscription_id=_subscription_id(request.subscription_id),
            billing_period_id=_optional_period_id(request.billing_period_id),
        )
        return pb.ListRecalculationsResponse(
            recalculations=[convert.encode_recalculation(r) for r in page.items],
            next_page_token=next_page_token(page, request),
        )


def _subscription_id(subscription_id: str) -> UUID:
    return decode_id(identifiers.SUBSCRIPTION, subscription_id, "subscription_id")


def _optional_period_id(billing_period_id: str) -> UUID | None:
    return decode_optional_id(identifiers.BILLING_PERIOD, billing_period_id, "billing_period_id")
