"""Aggregated usage."""

from billing.api.converters.values import EnumConverter, encode_decimal, encode_time
from billing.domain import identifiers
from billing.domain.usage_meters import SubscriptionUsageMeter, SubscriptionUsageMeterStatus
from billing.v1 import usage_pb2 as pb

status = EnumConverter(
    pb.SubscriptionUsageMeterStatus, "SUBSCRIPTION_USAGE_METER_STATUS", SubscriptionUsageMeterStatus
)


def encode_subscription_usage_meter(meter: SubscriptionUsageMeter) -> pb.SubscriptionUsageMeter:
    """Return the message of a meter's usage in a billing period."""
    return pb.SubscriptionUsageMeter(
        id=identifiers.to_typeid(identifiers.SUBSCRIPTION_USAGE_METER, meter.id),
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, meter.subscription_id),
        usage_meter_id=identifiers.to_typeid(identifiers.USAGE_METER, meter.usage_meter_id),
        usage_meter_name=meter.usage_meter_name,
        component_id=identifiers.to_typeid(identifiers.COMPONENT, meter.component_id),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, meter.billing_period_id
        ),
        period_start=encode_time(meter.period_start),
        period_end=encode_time(meter.period_end),
        status=status.encode(meter.status),
        total_quantity=encode_decimal(meter.total_quantity),
        event_count=meter.event_count,
        total_raw_usage_amount=meter.total_raw_usage_minor,
        credits_applied_amount=meter.credits_applied_minor,
        net_billed_amount=meter.net_billed_minor,
        currency=meter.currency,
        updated_at=encode_time(meter.updated_at),
        pending_quantity=encode_decimal(meter.pending_quantity),
        pending_amount=meter.pending_minor,
    )
