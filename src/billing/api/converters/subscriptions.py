"""Subscriptions."""

from billing.api.converters.values import EnumConverter, encode_time
from billing.domain import identifiers
from billing.domain.subscriptions import CancellationMode, Subscription, SubscriptionStatus
from billing.v1 import subscription_pb2 as pb

status = EnumConverter(pb.SubscriptionStatus, "SUBSCRIPTION_STATUS", SubscriptionStatus)
cancellation_mode = EnumConverter(pb.CancellationMode, "CANCELLATION_MODE", CancellationMode)


def encode_subscription(subscription: Subscription) -> pb.Subscription:
    """Return the message of a subscription."""
    return pb.Subscription(
        id=subscription.typeid,
        customer_id=subscription.customer_id,
        plan_id=identifiers.to_typeid(identifiers.PLAN, subscription.plan_id),
        plan_version_id=identifiers.to_typeid(
            identifiers.PLAN_VERSION, subscription.plan_version_id
        ),
        currency=subscription.currency,
        status=status.encode(subscription.status),
        started_at=encode_time(subscription.started_at),
        current_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, subscription.current_period_id
        ),
        current_period_start=encode_time(subscription.current_period_start),
        current_period_end=encode_time(subscription.current_period_end),
        cancel_at=encode_time(subscription.cancel_at),
        paused_at=encode_time(subscription.paused_at),
        cancelled_at=encode_time(subscription.cancelled_at),
        created_at=encode_time(subscription.created_at),
        updated_at=encode_time(subscription.updated_at),
    )
