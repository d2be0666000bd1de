"""Corrections of usage events."""

from billing.api.converters.ledger import entry_status
from billing.api.converters.values import EnumConverter, encode_decimal, encode_time
from billing.domain import identifiers
from billing.domain.usage_corrections import UsageEventCorrection, UsageEventCorrectionType
from billing.v1 import usage_correction_pb2 as pb

correction_type = EnumConverter(
    pb.UsageEventCorrectionType, "USAGE_EVENT_CORRECTION_TYPE", UsageEventCorrectionType
)


def encode_usage_event_correction(correction: UsageEventCorrection) -> pb.UsageEventCorrection:
    """Return the message of a correction."""
    return pb.UsageEventCorrection(
        id=correction.typeid,
        usage_event_id=identifiers.to_typeid(identifiers.USAGE_EVENT, correction.usage_event_id),
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, correction.subscription_id),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, correction.billing_period_id
        ),
        correction_type=correction_type.encode(correction.correction_type),
        quantity_before=encode_decimal(correction.quantity_before),
        quantity_after=encode_decimal(correction.quantity_after),
        cost_change_amount=correction.cost_change_minor,
        currency=correction.currency,
        reason=correction.reason,
        corrected_by_user_id=correction.corrected_by_user_id,
        status=entry_status.encode(correction.status),
        taken_in_at=encode_time(correction.taken_in_at),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, correction.ledger_transaction_id
        ),
        corrected_at=encode_time(correction.corrected_at),
    )
