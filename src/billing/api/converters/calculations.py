"""Calculations, estimates and recalculations."""

from billing.api.converters.values import (
    EnumConverter,
    encode_decimal,
    encode_optional_id,
    encode_time,
)
from billing.domain import identifiers
from billing.domain.billing import CalculationStatus, CalculationType, Charge
from billing.domain.calculations import Estimate, KeptCalculation
from billing.domain.recalculations import (
    Recalculation,
    RecalculationDocument,
    RecalculationDocumentKind,
)
from billing.v1 import calculation_pb2 as pb

calculation_type = EnumConverter(pb.CalculationType, "CALCULATION_TYPE", CalculationType)
status = EnumConverter(pb.CalculationStatus, "CALCULATION_STATUS", CalculationStatus)
document_kind = EnumConverter(
    pb.RecalculationDocumentKind, "RECALCULATION_DOCUMENT_KIND", RecalculationDocumentKind
)


def encode_calculation(calculation: KeptCalculation) -> pb.Calculation:
    """Return the message of a calculation."""
    return pb.Calculation(
        id=calculation.typeid,
        calculation_run_id=identifiers.to_typeid(
            identifiers.CALCULATION_RUN, calculation.calculation_run_id
        ),
        subscription_id=identifiers.to_typeid(
            identifiers.SUBSCRIPTION, calculation.subscription_id
        ),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, calculation.billing_period_id
        ),
        component_id=identifiers.to_typeid(identifiers.COMPONENT, calculation.component_id),
        usage_meter_id=identifiers.to_typeid(identifiers.USAGE_METER, calculation.usage_meter_id),
        calculation_type=calculation_type.encode(calculation.calculation_type),
        status=status.encode(calculation.status),
        total_quantity=encode_decimal(calculation.total_quantity),
        billable_quantity=encode_decimal(calculation.billable_quantity),
        unit_price=encode_decimal(calculation.unit_price),
        total_raw_usage_amount=calculation.total_raw_usage_minor,
        credits_applied_amount=calculation.credits_applied_minor,
        net_billed_amount=calculation.net_billed_minor,
        currency=calculation.currency,
        superseded_by_calculation_id=encode_optional_id(
            identifiers.CALCULATION, calculation.superseded_by_id
        ),
        source_invoice_id=calculation.source_invoice_id,
        source_credit_note_id=calculation.source_credit_note_id,
        notes=calculation.notes,
        billing_run_id=encode_optional_id(identifiers.BILLING_RUN, calculation.billing_run_id),
        calculated_at=encode_time(calculation.calculated_at),
    )


def encode_estimate(estimate: Estimate) -> pb.Estimate:
    """Return the message of an estimate."""
    return pb.Estimate(
        calculation_run_id=identifiers.to_typeid(
            identifiers.CALCULATION_RUN, estimate.calculation_run_id
        ),
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, estimate.subscription_id),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, estimate.billing_period_id
        ),
        charges=[_encode_estimated_charge(charge) for charge in estimate.charges],
        total_amount=estimate.total_minor,
        receivable_amount=estimate.receivable_minor,
        surplus_amount=estimate.surplus_minor,
        held_amount=estimate.held_minor,
        currency=estimate.currency,
        calculations=[encode_calculation(c) for c in estimate.calculations],
        estimated_at=encode_time(estimate.estimated_at),
    )


def _encode_estimated_charge(charge: Charge) -> pb.EstimatedCharge:
    return pb.EstimatedCharge(
        description=charge.description,
        component_id=encode_optional_id(identifiers.COMPONENT, charge.component_id),
        quantity=encode_decimal(charge.quantity),
        unit_price=encode_decimal(charge.unit_price),
        amount=charge.amount_minor,
    )


def encode_recalculation(recalculation: Recalculation) -> pb.Recalculation:
    """Return the message of a recalculation with its documents."""
    return pb.Recalculation(
        id=recalculation.typeid,
        subscription_id=identifiers.to_typeid(
            identifiers.SUBSCRIPTION, recalculation.subscription_id
        ),
        billing_period_id=identifiers.to_typeid(
            identifiers.BILLING_PERIOD, recalculation.billing_period_id
        ),
        reason=recalculation.reason,
        raw_change_amount=recalculation.raw_change_minor,
        credits_change_amount=recalculation.credits_change_minor,
        net_change_amount=recalculation.net_change_minor,
        recovered_amount=recalculation.recovered_minor,
        released_amount=recalculation.released_minor,
        surplus_amount=recalculation.surplus_minor,
        currency=recalculation.currency,
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, recalculation.ledger_transaction_id
        ),
        documents=[encode_document(document) for document in recalculation.documents],
        created_at=encode_time(recalculation.created_at),
    )


def encode_document(document: RecalculationDocument) -> pb.RecalculationDocument:
    """Return the message of a document."""
    return pb.RecalculationDocument(
        id=document.typeid,
        kind=document_kind.encode(document.kind),
        amount=document.amount_minor,
        currency=document.currency,
        invoice_id=document.invoice_id,
        document_id=document.document_id,
        delivered_at=encode_time(document.delivered_at),
        failure=document.failure,
    )
