"""Usage meters and plans."""

from decimal import Decimal

from billing.api.converters.values import (
    EnumConverter,
    decode_decimal,
    decode_id,
    encode_decimal,
    encode_time,
)
from billing.domain import identifiers
from billing.domain.catalog import (
    BillingInterval,
    Component,
    ComponentTerms,
    IntervalUnit,
    LateUsagePolicy,
    Plan,
    PlanTerms,
    PlanVersion,
    UsageAggregation,
    UsageMeter,
)
from billing.v1 import catalog_pb2 as pb

aggregation = EnumConverter(pb.UsageAggregation, "USAGE_AGGREGATION", UsageAggregation)
interval_unit = EnumConverter(pb.BillingIntervalUnit, "BILLING_INTERVAL_UNIT", IntervalUnit)
late_usage_policy = EnumConverter(pb.LateUsagePolicy, "LATE_USAGE_POLICY", LateUsagePolicy)


def encode_usage_meter(meter: UsageMeter) -> pb.UsageMeter:
    """Return the message of a meter."""
    return pb.UsageMeter(
        id=identifiers.to_typeid(identifiers.USAGE_METER, meter.id),
        code=meter.code,
        name=meter.name,
        aggregation=aggregation.encode(meter.aggregation),
        created_at=encode_time(meter.created_at),
    )


def decode_plan_terms(message: pb.PlanVersionInput) -> PlanTerms:
    """Return the content of a version; raises FieldInvalid."""
    return PlanTerms(
        name=message.name,
        base_price_minor=message.base_price_amount,
        interval=BillingInterval(
            interval_unit.decode(message.interval.unit), message.interval.count
        ),
        components=tuple(
            _decode_component(component, f"version.components[{index}]")
            for index, component in enumerate(message.components)
        ),
        late_usage_policy=late_usage_policy.decode_or(
            message.late_usage_policy, LateUsagePolicy.OPEN_PERIOD
        ),
    )


def _decode_component(message: pb.ComponentInput, path: str) -> ComponentTerms:
    included = Decimal(0)
    if message.HasField("included_units"):
        included = decode_decimal(message.included_units, f"{path}.included_units")
    return ComponentTerms(
        usage_meter_id=decode_id(
            identifiers.USAGE_METER, message.usage_meter_id, f"{path}.usage_meter_id"
        ),
        name=message.name,
        unit_price=decode_decimal(message.unit_price, f"{path}.unit_price"),
        included_units=included,
    )


def encode_plan(plan: Plan) -> pb.Plan:
    """Return the message of a plan."""
    return pb.Plan(
        id=identifiers.to_typeid(identifiers.PLAN, plan.id),
        currency=plan.currency,
        latest_version=encode_plan_version(plan.latest_version),
        created_at=encode_time(plan.created_at),
    )


def encode_plan_version(version: PlanVersion) -> pb.PlanVersion:
    """Return the message of a plan version."""
    return pb.PlanVersion(
        id=identifiers.to_typeid(identifiers.PLAN_VERSION, version.id),
        plan_id=identifiers.to_typeid(identifiers.PLAN, version.plan_id),
        version=version.version,
        name=version.name,
        base_price_amount=version.base_price_minor,
        interval=pb.BillingInterval(
            unit=interval_unit.encode(version.interval.unit), count=version.interval.count
        ),
        components=[encode_component(component) for component in version.components],
        created_at=encode_time(version.created_at),
        late_usage_policy=late_usage_policy.encode(version.late_usage_policy),
    )


def encode_component(component: Component) -> pb.Component:
    """Return the message of a component."""
    return pb.Component(
        id=identifiers.to_typeid(identifiers.COMPONENT, component.id),
        usage_meter_id=identifiers.to_typeid(identifiers.USAGE_METER, component.usage_meter_id),
        name=component.name,
        unit_price=encode_decimal(component.unit_price),
        included_units=encode_decimal(component.included_units),
    )
