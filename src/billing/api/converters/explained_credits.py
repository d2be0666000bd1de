"""Explanations of lines about credits, and the entries that explanations rest on."""

from billing.api.converters.credits import application_kind, credit_type
from billing.api.converters.values import encode_optional_id, encode_time
from billing.domain import identifiers
from billing.domain.credit_explanations import (
    CarriedExplanation,
    CreditExplanation,
    CreditUse,
    DeficitExplanation,
    ExplainedApplication,
    ExplainedDeficit,
)
from billing.domain.proofs import ExplainedEntry
from billing.v1 import explanation_pb2 as pb


def encode_entry(entry: ExplainedEntry) -> pb.ExplainedEntry:
    """Return the message of an entry."""
    return pb.ExplainedEntry(
        id=identifiers.to_typeid(identifiers.LEDGER_ENTRY, entry.id),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, entry.ledger_transaction_id
        ),
        amount=entry.amount_minor,
        posted_at=encode_time(entry.posted_at),
    )


def encode_credit_use(use: CreditUse) -> pb.CreditUse:
    """Return the message of what one credit pays."""
    return pb.CreditUse(
        usage_credit_id=identifiers.to_typeid(identifiers.USAGE_CREDIT, use.usage_credit_id),
        credit_type=credit_type.encode(use.credit_type),
        source_reference_id=use.source_reference_id,
        expires_at=encode_time(use.expires_at),
        applied_amount=use.applied_minor,
        reversed_amount=use.reversed_minor,
        reversed_since_amount=use.reversed_since_minor,
        paid_amount=use.paid_minor,
        application_count=use.application_count,
        applications=[_encode_application(application) for application in use.applications],
    )


def encode_credit(explained: CreditExplanation) -> pb.CreditExplanation:
    """Return the message of what credits pay."""
    return pb.CreditExplanation(
        credit_uses=[encode_credit_use(use) for use in explained.credit_uses]
    )


def encode_deficit(explained: DeficitExplanation) -> pb.DeficitExplanation:
    """Return the message of what could not be taken back."""
    return pb.DeficitExplanation(
        deficits=[_encode_explained_deficit(deficit) for deficit in explained.deficits]
    )


def encode_carried(explained: CarriedExplanation) -> pb.CarriedExplanation:
    """Return the message of what is carried to credit."""
    surplus, recalculation = explained.surplus, explained.recalculation
    return pb.CarriedExplanation(
        lines_before_amount=explained.lines_before_minor,
        lines_after_amount=explained.lines_after_minor,
        carried_before_amount=explained.carried_before_minor,
        carried_after_amount=explained.carried_after_minor,
        surplus_usage_credit_id=encode_optional_id(
            identifiers.USAGE_CREDIT, surplus.usage_credit_id if surplus else None
        ),
        surplus_amount=explained.surplus_minor,
        surplus_entry=encode_entry(surplus.entry) if surplus else None,
        paid_before_amount=explained.paid_before_minor,
        released_amount=recalculation.released_minor if recalculation else 0,
        recovered_amount=recalculation.recovered_minor if recalculation else 0,
    )


def _encode_application(application: ExplainedApplication) -> pb.ExplainedApplication:
    return pb.ExplainedApplication(
        id=identifiers.to_typeid(identifiers.CREDIT_APPLICATION, application.id),
        kind=application_kind.encode(application.kind),
        component_id=encode_optional_id(identifiers.COMPONENT, application.component_id),
        usage_from=encode_time(application.usage_from),
        usage_until=encode_time(application.usage_until),
        applied_amount=application.applied_minor,
        reversed_amount=application.reversed_minor,
        reversed_since_amount=application.reversed_since_minor,
        applied_at=encode_time(application.applied_at),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, application.ledger_transaction_id
        ),
    )


def _encode_explained_deficit(deficit: ExplainedDeficit) -> pb.ExplainedDeficit:
    return pb.ExplainedDeficit(
        usage_credit_id=identifiers.to_typeid(identifiers.USAGE_CREDIT, deficit.usage_credit_id),
        credit_balance_adjustment_id=identifiers.to_typeid(
            identifiers.CREDIT_BALANCE_ADJUSTMENT, deficit.credit_balance_adjustment_id
        ),
        refund_id=encode_optional_id(identifiers.REFUND, deficit.refund_id),
        adjusted_amount=deficit.adjusted_minor,
        deficit_amount=deficit.deficit_minor,
        reason=deficit.reason,
        entry=encode_entry(deficit.entry),
    )
