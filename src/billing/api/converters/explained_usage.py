"""Explanations of lines of usage."""

from billing.api.converters.calculations import encode_calculation
from billing.api.converters.catalog import encode_component
from billing.api.converters.explained_credits import encode_credit_use, encode_entry
from billing.api.converters.values import encode_decimal, encode_time
from billing.domain import identifiers
from billing.domain.usage_explanations import (
    ExplainedCorrection,
    ExplainedUsageEvent,
    PriceTier,
    TakenInUsage,
    UsageChangeExplanation,
    UsageExplanation,
    UsageRating,
    UsageTotals,
)
from billing.v1 import explanation_pb2 as pb


def encode_usage(explained: UsageExplanation) -> pb.UsageExplanation:
    """Return the message of a billing run's line."""
    return pb.UsageExplanation(
        component=encode_component(explained.component),
        rating=_encode_rating(explained.rating),
        calculation=encode_calculation(explained.calculation),
        superseded_calculations=[encode_calculation(c) for c in explained.superseded],
        superseding_calculations=[encode_calculation(c) for c in explained.superseding],
        totals=_encode_totals(explained.totals),
        usage_events=[_encode_event(event) for event in explained.events.items],
        credit_uses=[encode_credit_use(use) for use in explained.credit_uses],
        credits_applied_amount=explained.credits_applied_minor,
        net_amount=explained.net_minor,
    )


def encode_usage_change(explained: UsageChangeExplanation) -> pb.UsageChangeExplanation:
    """Return the message of a recalculation's line."""
    old, adjustment = explained.old_calculation, explained.billing_adjustment
    return pb.UsageChangeExplanation(
        component=encode_component(explained.component),
        old_calculation=encode_calculation(old) if old else None,
        new_calculation=encode_calculation(explained.new_calculation),
        old_rating=_encode_rating(explained.old_rating),
        new_rating=_encode_rating(explained.new_rating),
        totals=_encode_totals(explained.totals),
        taken_in_usages=[_encode_taken_in(usage) for usage in explained.taken_in.items],
        billing_adjustment=encode_entry(adjustment) if adjustment else None,
    )


def _encode_tier(tier: PriceTier) -> pb.PriceTier:
    up_to = tier.up_to_quantity
    return pb.PriceTier(
        from_quantity=encode_decimal(tier.from_quantity),
        up_to_quantity=encode_decimal(up_to) if up_to is not None else None,
        units=encode_decimal(tier.units),
        unit_price=encode_decimal(tier.unit_price),
        unrounded_amount=encode_decimal(tier.unrounded_minor),
    )


def _encode_rating(rating: UsageRating) -> pb.UsageRating:
    return pb.UsageRating(
        quantity=encode_decimal(rating.quantity),
        tiers=[_encode_tier(tier) for tier in rating.tiers],
        unrounded_amount=encode_decimal(rating.unrounded_minor),
        rounding_residue_amount=encode_decimal(rating.residue_minor),
        amount=rating.amount_minor,
    )


def _encode_totals(totals: UsageTotals) -> pb.UsageTotals:
    return pb.UsageTotals(
        event_count=totals.event_count,
        event_quantity=encode_decimal(totals.event_quantity),
        event_cost_amount=totals.event_cost_minor,
        correction_count=totals.correction_count,
        correction_quantity=encode_decimal(totals.correction_quantity),
        correction_cost_amount=totals.correction_cost_minor,
    )


def _encode_event(event: ExplainedUsageEvent) -> pb.ExplainedUsageEvent:
    return pb.ExplainedUsageEvent(
        id=identifiers.to_typeid(identifiers.USAGE_EVENT, event.id),
        idempotency_key=event.idempotency_key,
        event_timestamp=encode_time(event.event_timestamp),
        quantity=encode_decimal(event.quantity),
        cost_amount=event.cost_minor,
        is_late=event.is_late,
        ledger_entry_id=identifiers.to_typeid(identifiers.LEDGER_ENTRY, event.ledger_entry_id),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, event.ledger_transaction_id
        ),
        corrections=[_encode_correction(correction) for correction in event.corrections],
    )


def _encode_correction(correction: ExplainedCorrection) -> pb.ExplainedCorrection:
    return pb.ExplainedCorrection(
        id=identifiers.to_typeid(identifiers.USAGE_EVENT_CORRECTION, correction.id),
        usage_event_id=identifiers.to_typeid(identifiers.USAGE_EVENT, correction.usage_event_id),
        is_void=correction.is_void,
        quantity_before=encode_decimal(correction.quantity_before),
        quantity_after=encode_decimal(correction.quantity_after),
        cost_change_amount=correction.cost_change_minor,
        reason=correction.reason,
        ledger_entry_id=identifiers.to_typeid(identifiers.LEDGER_ENTRY, correction.ledger_entry_id),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, correction.ledger_transaction_id
        ),
        corrected_at=encode_time(correction.corrected_at),
    )


def _encode_taken_in(usage: TakenInUsage) -> pb.TakenInUsage:
    if isinstance(usage, ExplainedCorrection):
        return pb.TakenInUsage(correction=_encode_correction(usage))
    return pb.TakenInUsage(held_event=_encode_event(usage))
