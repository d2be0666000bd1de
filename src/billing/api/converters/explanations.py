"""Explanations of charges and balances."""

from typing import Any

from billing.api.converters.calculations import encode_document
from billing.api.converters.catalog import encode_plan_version
from billing.api.converters.charges import encode_charge
from billing.api.converters.explained_credits import (
    encode_carried,
    encode_credit,
    encode_deficit,
    encode_entry,
)
from billing.api.converters.explained_usage import encode_usage, encode_usage_change
from billing.api.converters.ledger import encode_initiating_source
from billing.api.converters.values import encode_time
from billing.domain import identifiers
from billing.domain.balance_explanations import (
    BalanceExplanation,
    BalanceMovement,
    ExplainedTransaction,
)
from billing.domain.credit_explanations import (
    CarriedExplanation,
    CreditExplanation,
    DeficitExplanation,
)
from billing.domain.explanations import ChargeExplanation, Explanation, RecurringExplanation
from billing.domain.ledger import Balance, LedgerSourceType
from billing.domain.usage_explanations import UsageChangeExplanation, UsageExplanation
from billing.services.explanations import BEGINNING
from billing.v1 import balance_explanation_pb2, explanation_pb2


def encode_charge_explanation(explained: ChargeExplanation) -> explanation_pb2.ChargeExplanation:
    """Return the message of why a charge is what it is."""
    period = explained.invoiced.period
    message = explanation_pb2.ChargeExplanation(
        charge=encode_charge(explained.charge),
        period_start=encode_time(period.period_start),
        period_end=encode_time(period.period_end),
        invoice_id=explained.invoiced.invoice_id,
        lines_amount=explained.lines_minor,
        documents=[encode_document(document) for document in explained.documents],
    )
    field, value = _encode_explanation(explained.explanation)
    getattr(message, field).CopyFrom(value)
    return message


def encode_balance_explanation(
    explained: BalanceExplanation,
) -> balance_explanation_pb2.BalanceExplanation:
    """Return the message of why a balance moved."""
    return balance_explanation_pb2.BalanceExplanation(
        subscription_id=identifiers.to_typeid(
            identifiers.SUBSCRIPTION, explained.closing.subscription_id
        ),
        currency=explained.closing.currency,
        opening=_encode_figures(explained.opening),
        movements=[_encode_movement(movement) for movement in explained.movements],
        closing=_encode_figures(explained.closing),
    )


def _encode_explanation(explanation: Explanation) -> tuple[str, Any]:
    """Return the field of the explanation, and its message."""
    match explanation:
        case UsageExplanation():
            return "usage", encode_usage(explanation)
        case UsageChangeExplanation():
            return "usage_change", encode_usage_change(explanation)
        case RecurringExplanation():
            return "recurring", _encode_recurring(explanation)
        case CreditExplanation():
            return "credit", encode_credit(explanation)
        case DeficitExplanation():
            return "credit_deficit", encode_deficit(explanation)
        case CarriedExplanation():
            return "carried", encode_carried(explanation)


def _encode_recurring(explained: RecurringExplanation) -> explanation_pb2.RecurringExplanation:
    version = encode_plan_version(explained.version)
    return explanation_pb2.RecurringExplanation(
        plan_id=version.plan_id,
        plan_version_id=version.id,
        plan_version=version.version,
        plan_name=version.name,
        interval=version.interval,
        base_price_amount=version.base_price_amount,
        entry=encode_entry(explained.entry),
    )


def _encode_figures(balance: Balance) -> balance_explanation_pb2.BalanceFigures:
    return balance_explanation_pb2.BalanceFigures(
        as_of=encode_time(None if balance.as_of == BEGINNING else balance.as_of),
        outstanding_amount=balance.outstanding_minor,
        credit_balance_amount=balance.credit_balance_minor,
        net_amount=balance.net_minor,
    )


def _encode_movement(movement: BalanceMovement) -> balance_explanation_pb2.BalanceMovement:
    return balance_explanation_pb2.BalanceMovement(
        entry_type=movement.entry_type.value,
        initiating_source_type=movement.source_type.value,
        entry_count=movement.entry_count,
        transaction_count=movement.transaction_count,
        amount=movement.amount_minor,
        outstanding_change_amount=movement.outstanding_change_minor,
        credit_balance_change_amount=movement.credit_balance_change_minor,
        net_change_amount=movement.net_change_minor,
        transactions=[
            _encode_transaction(transaction, movement.source_type)
            for transaction in movement.transactions
        ],
    )


def _encode_transaction(
    transaction: ExplainedTransaction, source_type: LedgerSourceType
) -> balance_explanation_pb2.ExplainedTransaction:
    return balance_explanation_pb2.ExplainedTransaction(
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, transaction.ledger_transaction_id
        ),
        initiating_source_id=encode_initiating_source(
            source_type, transaction.initiating_source_id
        ),
        description=transaction.description,
        entry_count=transaction.entry_count,
        amount=transaction.amount_minor,
        posted_at=encode_time(transaction.posted_at),
    )
