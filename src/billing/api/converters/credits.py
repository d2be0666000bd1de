"""Usage credits, what was done with them, and their figures."""

from typing import Final

from google.protobuf.field_mask_pb2 import FieldMask

from billing.api.converters.values import (
    EnumConverter,
    decode_id,
    decode_optional_id,
    decode_stored_time,
    encode_optional_id,
    encode_time,
)
from billing.domain import identifiers
from billing.domain.credits import (
    CreditApplication,
    CreditApplicationKind,
    CreditBalanceAdjustment,
    CreditBalanceAdjustmentDirection,
    CreditBalanceAdjustmentType,
    CreditSummary,
    CreditTerms,
    ExpiryOutcome,
    UsageCredit,
    UsageCreditStatus,
    UsageCreditType,
)
from billing.domain.errors import FieldInvalid
from billing.v1 import credit_pb2
from billing.v1 import usage_credit_pb2 as pb

credit_type = EnumConverter(pb.UsageCreditType, "USAGE_CREDIT_TYPE", UsageCreditType)
status = EnumConverter(pb.UsageCreditStatus, "USAGE_CREDIT_STATUS", UsageCreditStatus)
application_kind = EnumConverter(
    pb.CreditApplicationKind, "CREDIT_APPLICATION_KIND", CreditApplicationKind
)
adjustment_type = EnumConverter(
    pb.CreditBalanceAdjustmentType, "CREDIT_BALANCE_ADJUSTMENT_TYPE", CreditBalanceAdjustmentType
)
adjustment_direction = EnumConverter(
    pb.CreditBalanceAdjustmentDirection,
    "CREDIT_BALANCE_ADJUSTMENT_DIRECTION",
    CreditBalanceAdjustmentDirection,
)

_UPDATABLE_FIELDS: Final = ("notes", "metadata")
_MAX_SHOWN_CHARACTERS: Final = 40


def decode_credit_terms(request: credit_pb2.GrantCreditRequest) -> CreditTerms:
    """Return what a grant says; raises FieldInvalid."""
    return CreditTerms(
        subscription_id=decode_id(
            identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
        ),
        credit_type=credit_type.decode(request.credit_type),
        issued_minor=request.amount,
        currency=request.currency,
        priority=request.priority,
        covers_charges=request.covers_charges,
        effective_at=decode_stored_time(request, "effective_at"),
        expires_at=decode_stored_time(request, "expires_at"),
        billing_period_id=decode_optional_id(
            identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
        ),
        usage_meter_id=decode_optional_id(
            identifiers.USAGE_METER, request.usage_meter_id, "usage_meter_id"
        ),
        component_id=decode_optional_id(
            identifiers.COMPONENT, request.component_id, "component_id"
        ),
        source_reference_id=request.source_reference_id,
        notes=request.notes,
        metadata=dict(request.metadata),
    )


def decode_update_mask(mask: FieldMask) -> frozenset[str]:
    """Return the fields of a credit that are to be changed; raises FieldInvalid."""
    allowed = " and ".join(map(repr, _UPDATABLE_FIELDS))
    paths = frozenset(mask.paths)
    if not paths:
        raise FieldInvalid("update_mask", f"names nothing; {allowed} can be changed")
    others = sorted(paths.difference(_UPDATABLE_FIELDS))
    if others:
        raise FieldInvalid(
            "update_mask",
            f"{others[0][:_MAX_SHOWN_CHARACTERS]!r} cannot be changed, only {allowed} can",
        )
    return paths


def encode_usage_credit(credit: UsageCredit) -> pb.UsageCredit:
    """Return the message of a credit."""
    return pb.UsageCredit(
        id=credit.typeid,
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, credit.subscription_id),
        credit_type=credit_type.encode(credit.credit_type),
        source_reference_id=credit.source_reference_id,
        billing_period_id=encode_optional_id(identifiers.BILLING_PERIOD, credit.billing_period_id),
        usage_meter_id=encode_optional_id(identifiers.USAGE_METER, credit.usage_meter_id),
        component_id=encode_optional_id(identifiers.COMPONENT, credit.component_id),
        issued_amount=credit.issued_minor,
        currency=credit.currency,
        priority=credit.priority,
        covers_charges=credit.covers_charges,
        effective_at=encode_time(credit.effective_at),
        expires_at=encode_time(credit.expires_at),
        issued_at=encode_time(credit.issued_at),
        initial_status=credit.initial_status,
        status=status.encode(credit.status),
        remaining_amount=credit.remaining_minor,
        held_amount=credit.held_minor,
        notes=credit.notes,
        metadata=credit.metadata,
        voided_at=encode_time(credit.voided_at),
        expired_at=encode_time(credit.expired_at),
        updated_at=encode_time(credit.updated_at),
    )


def encode_credit_application(application: CreditApplication) -> pb.CreditApplication:
    """Return the message of a use of a credit."""
    return pb.CreditApplication(
        id=identifiers.to_typeid(identifiers.CREDIT_APPLICATION, application.id),
        usage_credit_id=identifiers.to_typeid(
            identifiers.USAGE_CREDIT, application.usage_credit_id
        ),
        subscription_id=identifiers.to_typeid(
            identifiers.SUBSCRIPTION, application.subscription_id
        ),
        kind=application_kind.encode(application.kind),
        calculation_run_id=identifiers.to_typeid(
            identifiers.CALCULATION_RUN, application.calculation_run_id
        ),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, application.billing_period_id
        ),
        component_id=encode_optional_id(identifiers.COMPONENT, application.component_id),
        usage_meter_id=encode_optional_id(identifiers.USAGE_METER, application.usage_meter_id),
        amount_applied=application.applied_minor,
        reversed_amount=application.reversed_minor,
        currency=application.currency,
        usage_from=encode_time(application.usage_from),
        usage_until=encode_time(application.usage_until),
        applied_at=encode_time(application.applied_at),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, application.ledger_transaction_id
        ),
    )


def encode_credit_balance_adjustment(
    adjustment: CreditBalanceAdjustment,
) -> pb.CreditBalanceAdjustment:
    """Return the message of a change of a credit's value."""
    return pb.CreditBalanceAdjustment(
        id=identifiers.to_typeid(identifiers.CREDIT_BALANCE_ADJUSTMENT, adjustment.id),
        usage_credit_id=identifiers.to_typeid(identifiers.USAGE_CREDIT, adjustment.usage_credit_id),
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, adjustment.subscription_id),
        adjustment_type=adjustment_type.encode(adjustment.adjustment_type),
        direction=adjustment_direction.encode(adjustment.direction),
        amount_adjusted=adjustment.adjusted_minor,
        deficit_amount=adjustment.deficit_minor,
        currency=adjustment.currency,
        reason=adjustment.reason,
        adjusted_by_user_id=adjustment.adjusted_by_user_id,
        notes=adjustment.notes,
        metadata=adjustment.metadata,
        source_refund_id=encode_optional_id(identifiers.REFUND, adjustment.source_refund_id),
        adjustment_initiated_at=encode_time(adjustment.adjustment_initiated_at),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, adjustment.ledger_transaction_id
        ),
    )


def encode_credit_summary(summary: CreditSummary) -> pb.CreditSummary:
    """Return the message of a subscription's figures, the types in the contract's order."""
    by_type = summary.available_by_type
    return pb.CreditSummary(
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, summary.subscription_id),
        currency=summary.currency,
        available_amount=summary.available_minor,
        upcoming_amount=summary.upcoming_minor,
        held_amount=summary.held_minor,
        credit_balance_amount=summary.credit_balance_minor,
        available_count=summary.available_count,
        next_expires_at=encode_time(summary.next_expires_at),
        next_expiring_amount=summary.next_expiring_minor,
        available_by_type=[
            pb.CreditTypeAmount(credit_type=credit_type.encode(kind), amount=by_type[kind])
            for kind in UsageCreditType
            if kind in by_type
        ],
        as_of=encode_time(summary.as_of),
    )


def encode_expiry_outcome(outcome: ExpiryOutcome) -> credit_pb2.ExpireCreditsResponse:
    """Return the message of what expired, by currency in alphabetical order."""
    return credit_pb2.ExpireCreditsResponse(
        expired_count=outcome.expired_count,
        deferred_count=outcome.deferred_count,
        failed_count=outcome.failed_count,
        expired_amounts=[
            credit_pb2.ExpiredAmount(currency=currency, amount=amount_minor)
            for currency, amount_minor in sorted(outcome.expired_minor.items())
        ],
    )
