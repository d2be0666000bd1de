"""UsageService."""

from collections import Counter
from decimal import Decimal

from billing.api.converters import usage as convert
from billing.api.converters import usage_corrections as convert_corrections
from billing.api.converters import usage_meters as convert_meters
from billing.api.converters.values import (
    decode_decimal,
    decode_id,
    decode_optional_id,
    decode_optional_time,
    idempotent_request,
)
from billing.api.page_tokens import next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.domain.usage import UsageEventOutcome
from billing.domain.usage_corrections import UsageEventCorrectionType
from billing.services.usage import UsageService
from billing.services.usage_corrections import UsageCorrectionService
from billing.v1 import usage_correction_pb2 as correction_pb
from billing.v1 import usage_pb2 as pb
from billing.v1 import usage_pb2_grpc


class UsageServicer(usage_pb2_grpc.UsageServiceServicer):
    """Takes usage events."""

    def __init__(self, usage: UsageService, corrections: UsageCorrectionService) -> None:
        self._usage = usage
        self._corrections = corrections

    async def IngestUsageEvents(
        self, request: pb.IngestUsageEventsRequest, context: Context
    ) -> pb.IngestUsageEventsResponse:
        """Store and rate events, each with a result of its own."""
        results = await self._usage.ingest_usage_events(
            current_scope(request), convert.decode_usage_events(request.events)
        )
        counts = Counter(result.outcome for result in results)
        return pb.IngestUsageEventsResponse(
            results=[convert.encode_result(result) for result in results],
            accepted_count=counts[UsageEventOutcome.ACCEPTED],
            duplicate_count=counts[UsageEventOutcome.DUPLICATE],
            conflict_count=counts[UsageEventOutcome.CONFLICT],
            rejected_count=counts[UsageEventOutcome.REJECTED],
        )

    async def GetUsageEvent(
        self, request: pb.GetUsageEventRequest, context: Context
    ) -> pb.GetUsageEventResponse:
        """Return one usage event."""
        event = await self._usage.get_usage_event(
            current_scope(request),
            decode_id(identifiers.USAGE_EVENT, request.usage_event_id, "usage_event_id"),
        )
        return pb.GetUsageEventResponse(usage_event=convert.encode_usage_event(event))

    async def ListUsageEvents(
        self, request: pb.ListUsageEventsRequest, context: Context
    ) -> pb.ListUsageEventsResponse:
        """List the usage events of a subscription."""
        page = await self._usage.list_usage_events(
            current_scope(request),
            page_request(request, key_length=2),
            subscription_id=decode_id(
                identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
            ),
            billing_period_id=decode_optional_id(
                identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
            ),
            usage_meter_id=decode_optional_id(
                identifiers.USAGE_METER, request.usage_meter_id, "usage_meter_id"
            ),
        )
        return pb.ListUsageEventsResponse(
            usage_events=[convert.encode_usage_event(event) for event in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def AmendUsageEvent(
        self, request: correction_pb.AmendUsageEventRequest, context: Context
    ) -> correction_pb.AmendUsageEventResponse:
        """Tell the right quantity of an event."""
        correction = await self._corrections.correct_usage_event(
            current_scope(request),
            decode_id(identifiers.USAGE_EVENT, request.usage_event_id, "usage_event_id"),
            UsageEventCorrectionType.AMENDMENT,
            quantity=decode_decimal(request.quantity, "quantity"),
            reason=request.reason,
            corrected_by_user_id=request.corrected_by_user_id,
            request=idempotent_request(request, "AmendUsageEvent"),
        )
        return correction_pb.AmendUsageEventResponse(
            correction=convert_corrections.encode_usage_event_correction(correction)
        )

    async def VoidUsageEvent(
        self, request: correction_pb.VoidUsageEventRequest, context: Context
    ) -> correction_pb.VoidUsageEventResponse:
        """Take an event out."""
        correction = await self._corrections.correct_usage_event(
            current_scope(request),
            decode_id(identifiers.USAGE_EVENT, request.usage_event_id, "usage_event_id"),
            UsageEventCorrectionType.VOID,
            quantity=Decimal(0),
            reason=request.reason,
            corrected_by_user_id=request.corrected_by_user_id,
            request=idempotent_request(request, "VoidUsageEvent"),
        )
        return correction_pb.VoidUsageEventResponse(
            correction=convert_corrections.encode_usage_event_correction(correction)
        )

    async def ListUsageEventCorrections(
        self, request: correction_pb.ListUsageEventCorrectionsRequest, context: Context
    ) -> correction_pb.ListUsageEventCorrectionsResponse:
        """List the corrections of an event."""
        page = await self._corrections.list_usage_event_corrections(
            current_scope(request),
            page_request(request),
            usage_event_id=decode_id(
                identifiers.USAGE_EVENT, request.usage_event_id, "usage_event_id"
            ),
        )
        return correction_pb.ListUsageEventCorrectionsResponse(
            corrections=[convert_corrections.encode_usage_event_correction(c) for c in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def GetSubscriptionUsageMeter(
        self, request: pb.GetSubscriptionUsageMeterRequest, context: Context
    ) -> pb.GetSubscriptionUsageMeterResponse:
        """Return the usage of one meter in one billing period."""
        meter = await self._usage.get_subscription_usage_meter(
            current_scope(request),
            decode_id(
                identifiers.SUBSCRIPTION_USAGE_METER,
                request.subscription_usage_meter_id,
                "subscription_usage_meter_id",
            ),
        )
        return pb.GetSubscriptionUsageMeterResponse(
            subscription_usage_meter=convert_meters.encode_subscription_usage_meter(meter)
        )

    async def ListSubscriptionUsageMeters(
        self, request: pb.ListSubscriptionUsageMetersRequest, context: Context
    ) -> pb.ListSubscriptionUsageMetersResponse:
        """List the usage of a subscription by meter and billing period."""
        page = await self._usage.list_subscription_usage_meters(
            current_scope(request),
            page_request(request),
            subscription_id=decode_id(
                identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
            ),
            usage_meter_id=decode_optional_id(
                identifiers.USAGE_METER, request.usage_meter_id, "usage_meter_id"
            ),
            billing_period_id=decode_optional_id(
                identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
            ),
            status=convert_meters.status.decode_filter(request.status),
            date_from=decode_optional_time(request, "date_from"),
            date_to=decode_optional_time(request, "date_to"),
        )
        return pb.ListSubscriptionUsageMetersResponse(
            subscription_usage_meters=[
                convert_meters.encode_subscription_usage_meter(meter) for meter in page.items
            ],
            next_page_token=next_page_token(page, request),
        )
