"""Subscriptions."""

from billing.api.converters.values import EnumConverter, encode_decimal, encode_time
from billing.domain import identifiers
from billing.domain.subscriptions import (
    CancellationMode,
    CreditApplicationMode,
    Subscription,
    SubscriptionStatus,
)
from billing.domain.usage_meters import SubscriptionOverview, UsageSummary
from billing.v1 import subscription_pb2 as pb

status = EnumConverter(pb.SubscriptionStatus, "SUBSCRIPTION_STATUS", SubscriptionStatus)
cancellation_mode = EnumConverter(pb.CancellationMode, "CANCELLATION_MODE", CancellationMode)
credit_application = EnumConverter(
    pb.CreditApplicationMode, "CREDIT_APPLICATION_MODE", CreditApplicationMode
)


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
        credit_application=credit_application.encode(subscription.credit_application),
    )


def encode_overview(overview: SubscriptionOverview) -> pb.Subscription:
    """Return the message of a subscription with its current usage and spendable credits."""
    message = encode_subscription(overview.subscription)
    message.current_period_usage_summary.extend(map(_encode_usage, overview.usage))
    message.available_credits_summary.CopyFrom(
        pb.AvailableCreditsSummary(
            total_remaining_amount=overview.available_credit_minor,
            currency=overview.subscription.currency,
            credit_count=overview.credit_count,
        )
    )
    return message


def _encode_usage(usage: UsageSummary) -> pb.UsageSummary:
    return pb.UsageSummary(
        usage_meter_id=identifiers.to_typeid(identifiers.USAGE_METER, usage.usage_meter_id),
        usage_meter_name=usage.usage_meter_name,
        component_id=identifiers.to_typeid(identifiers.COMPONENT, usage.component_id),
        total_quantity=encode_decimal(usage.total_quantity),
        total_raw_usage_amount=usage.total_raw_usage_minor,
        credits_applied_amount=usage.credits_applied_minor,
        net_billed_amount=usage.net_billed_minor,
    )
