"""SubscriptionService."""

from uuid import UUID

from billing.api.converters import subscriptions as convert
from billing.api.converters.values import (
    decode_id,
    decode_optional_time,
    encode_optional_id,
    idempotent_request,
)
from billing.api.page_tokens import next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.domain.subscriptions import CreditApplicationMode
from billing.services.subscriptions import SubscriptionService
from billing.v1 import subscription_pb2 as pb
from billing.v1 import subscription_pb2_grpc


class SubscriptionServicer(subscription_pb2_grpc.SubscriptionServiceServicer):
    """Keeps subscriptions and their states."""

    def __init__(self, subscriptions: SubscriptionService) -> None:
        self._subscriptions = subscriptions

    async def CreateSubscription(
        self, request: pb.CreateSubscriptionRequest, context: Context
    ) -> pb.CreateSubscriptionResponse:
        """Create a subscription."""
        subscription = await self._subscriptions.create_subscription(
            current_scope(request),
            customer_id=request.customer_id,
            plan_id=decode_id(identifiers.PLAN, request.plan_id, "plan_id"),
            started_at=decode_optional_time(request, "started_at"),
            credit_application=convert.credit_application.decode_or(
                request.credit_application, CreditApplicationMode.AT_BILLING
            ),
            request=idempotent_request(request, "CreateSubscription"),
        )
        return pb.CreateSubscriptionResponse(subscription=convert.encode_subscription(subscription))

    async def GetSubscription(
        self, request: pb.GetSubscriptionRequest, context: Context
    ) -> pb.GetSubscriptionResponse:
        """Return one subscription."""
        overview = await self._subscriptions.get_overview(
            current_scope(request), _decode_id(request.subscription_id)
        )
        return pb.GetSubscriptionResponse(subscription=convert.encode_overview(overview))

    async def ListSubscriptions(
        self, request: pb.ListSubscriptionsRequest, context: Context
    ) -> pb.ListSubscriptionsResponse:
        """List subscriptions."""
        page = await self._subscriptions.list_subscriptions(
            current_scope(request),
            page_request(request),
            status=convert.status.decode_filter(request.status),
            customer_id=request.customer_id or None,
        )
        return pb.ListSubscriptionsResponse(
            subscriptions=[convert.encode_subscription(item) for item in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def PauseSubscription(
        self, request: pb.PauseSubscriptionRequest, context: Context
    ) -> pb.PauseSubscriptionResponse:
        """Pause a subscription."""
        subscription = await self._subscriptions.pause_subscription(
            current_scope(request),
            _decode_id(request.subscription_id),
            request=idempotent_request(request, "PauseSubscription"),
        )
        return pb.PauseSubscriptionResponse(subscription=convert.encode_subscription(subscription))

    async def ResumeSubscription(
        self, request: pb.ResumeSubscriptionRequest, context: Context
    ) -> pb.ResumeSubscriptionResponse:
        """Resume a subscription."""
        subscription = await self._subscriptions.resume_subscription(
            current_scope(request),
            _decode_id(request.subscription_id),
            request=idempotent_request(request, "ResumeSubscription"),
        )
        return pb.ResumeSubscriptionResponse(subscription=convert.encode_subscription(subscription))

    async def CancelSubscription(
        self, request: pb.CancelSubscriptionRequest, context: Context
    ) -> pb.CancelSubscriptionResponse:
        """Cancel a subscription."""
        subscription, run_id = await self._subscriptions.cancel_subscription(
            current_scope(request),
            _decode_id(request.subscription_id),
            mode=convert.cancellation_mode.decode(request.mode),
            request=idempotent_request(request, "CancelSubscription"),
        )
        return pb.CancelSubscriptionResponse(
            subscription=convert.encode_subscription(subscription),
            run_id=encode_optional_id(identifiers.BILLING_RUN, run_id),
        )


def _decode_id(subscription_id: str) -> UUID:
    return decode_id(identifiers.SUBSCRIPTION, subscription_id, "subscription_id")
