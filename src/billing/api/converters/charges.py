"""Charges."""

from billing.api.converters.values import (
    EnumConverter,
    encode_decimal,
    encode_optional_id,
    encode_time,
)
from billing.domain import identifiers
from billing.domain.billing import ChargeType
from billing.domain.charges import KeptCharge
from billing.v1 import charge_pb2 as pb

charge_type = EnumConverter(pb.ChargeType, "CHARGE_TYPE", ChargeType)


def encode_charge(charge: KeptCharge) -> pb.Charge:
    """Return the message of a charge."""
    return pb.Charge(
        id=charge.typeid,
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, charge.subscription_id),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, charge.billing_period_id
        ),
        charge_type=charge_type.encode(charge.charge_type),
        component_id=encode_optional_id(identifiers.COMPONENT, charge.component_id),
        description=charge.description,
        quantity=encode_decimal(charge.quantity),
        unit_price=encode_decimal(charge.unit_price),
        amount=charge.amount_minor,
        currency=charge.currency,
        billing_run_id=encode_optional_id(identifiers.BILLING_RUN, charge.billing_run_id),
        recalculation_id=encode_optional_id(identifiers.CALCULATION_RUN, charge.recalculation_id),
        calculation_run_id=identifiers.to_typeid(
            identifiers.CALCULATION_RUN, charge.calculation_run_id
        ),
        created_at=encode_time(charge.created_at),
    )
