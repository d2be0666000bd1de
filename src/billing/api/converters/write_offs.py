"""Write-offs."""

from billing.api.converters.values import encode_time
from billing.domain import identifiers
from billing.domain.write_offs import WriteOff
from billing.v1 import write_off_pb2 as pb


def encode_write_off(write_off: WriteOff) -> pb.WriteOff:
    """Return the message of a write-off."""
    return pb.WriteOff(
        id=write_off.typeid,
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, write_off.subscription_id),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, write_off.billing_period_id
        ),
        amount=write_off.amount_minor,
        recovered_amount=write_off.recovered_minor,
        currency=write_off.currency,
        reason=write_off.reason,
        written_off_by_user_id=write_off.written_off_by_user_id,
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, write_off.ledger_transaction_id
        ),
        created_at=encode_time(write_off.created_at),
        updated_at=encode_time(write_off.updated_at),
    )
