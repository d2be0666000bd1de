"""Usage events. Each event of a call is decoded by itself: a bad one is a value, not an error."""

from collections.abc import Iterable
from functools import lru_cache

from billing.api.converters.values import (
    EnumConverter,
    decode_decimal,
    decode_id,
    decode_time,
    encode_decimal,
    encode_optional_id,
    encode_time,
)
from billing.api.violations import violations_of
from billing.domain import identifiers
from billing.domain.errors import FieldInvalid
from billing.domain.usage import (
    UsageEvent,
    UsageEventDisposition,
    UsageEventInput,
    UsageEventOutcome,
    UsageEventResult,
    UsageRejected,
)
from billing.v1 import usage_pb2 as pb

outcome = EnumConverter(pb.UsageEventOutcome, "USAGE_EVENT_OUTCOME", UsageEventOutcome)
disposition = EnumConverter(
    pb.UsageEventDisposition, "USAGE_EVENT_DISPOSITION", UsageEventDisposition
)

# The events of a call share few subscriptions and meters.
_decode_cached_id = lru_cache(maxsize=65_536)(decode_id)


def decode_usage_events(
    messages: Iterable[pb.UsageEventInput],
) -> list[UsageEventInput | UsageRejected]:
    """Return each event, or why its own form rules it out."""
    return [_decode_usage_event(message) for message in messages]


def _decode_usage_event(message: pb.UsageEventInput) -> UsageEventInput | UsageRejected:
    violations = violations_of(message)
    if violations:
        problems = "; ".join(f"{v.field}: {v.description}" for v in violations)
        return UsageRejected("FIELD_INVALID", problems)
    try:
        return UsageEventInput(
            idempotency_key=message.idempotency_key,
            subscription_id=_decode_cached_id(
                identifiers.SUBSCRIPTION, message.subscription_id, "subscription_id"
            ),
            usage_meter_id=_decode_cached_id(
                identifiers.USAGE_METER, message.usage_meter_id, "usage_meter_id"
            ),
            quantity=decode_decimal(message.quantity, "quantity"),
            event_timestamp=decode_time(message.event_timestamp, "event_timestamp"),
            properties=dict(message.properties),
        )
    except FieldInvalid as error:
        return UsageRejected(error.reason, error.message)


def encode_result(result: UsageEventResult) -> pb.UsageEventResult:
    """Return the message of what became of an event."""
    return pb.UsageEventResult(
        outcome=outcome.encode(result.outcome),
        usage_event_id=encode_optional_id(identifiers.USAGE_EVENT, result.usage_event_id),
        reason=result.reason,
        message=result.message,
    )


def encode_usage_event(event: UsageEvent) -> pb.UsageEvent:
    """Return the message of a stored event."""

    return pb.UsageEvent(
        id=identifiers.to_typeid(identifiers.USAGE_EVENT, event.id),
        idempotency_key=event.idempotency_key,
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, event.subscription_id),
        usage_meter_id=identifiers.to_typeid(identifiers.USAGE_METER, event.usage_meter_id),
        component_id=identifiers.to_typeid(identifiers.COMPONENT, event.component_id),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, event.billing_period_id
        ),
        quantity=encode_decimal(event.quantity),
        event_timestamp=encode_time(event.event_timestamp),
        properties=event.properties,
        disposition=disposition.encode(event.disposition),
        cost_amount=event.cost_minor,
        currency=event.currency,
        ledger_entry_id=identifiers.to_typeid(identifiers.LEDGER_ENTRY, event.ledger_entry_id),
        received_at=encode_time(event.received_at),
        corrected_quantity=encode_decimal(event.corrected_quantity),
        corrected_cost_amount=event.corrected_cost_minor,
        voided=event.is_voided,
        taken_in_at=encode_time(event.taken_in_at),
    )
