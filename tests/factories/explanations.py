"""Explanations as a caller gets them, and the proof that each adds up on its own."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing.v1 import balance_explanation_pb2, charge_pb2, explanation_pb2
from tests.factories.client import BillingClient, timestamp

HALF = Decimal("0.5")


async def charges_of(
    client: BillingClient, subscription_id: str, billing_period_id: str = "", **fields: Any
) -> list[charge_pb2.Charge]:
    """All charges of a subscription, or of one billing period, in order."""
    found: list[charge_pb2.Charge] = []
    token = ""
    while True:
        answer: charge_pb2.ListChargesResponse = await client.ledger.ListCharges(
            charge_pb2.ListChargesRequest(
                **{
                    "tenant_id": client.tenant_id,
                    "subscription_id": subscription_id,
                    "billing_period_id": billing_period_id,
                    "page_token": token,
                    **fields,
                }
            )
        )
        found += answer.charges
        token = answer.next_page_token
        if not token:
            return found


async def explain(
    client: BillingClient, charge_id: str, **fields: Any
) -> explanation_pb2.ExplainChargeResponse:
    """One page of a charge's explanation."""
    request = explanation_pb2.ExplainChargeRequest(
        tenant_id=client.tenant_id, charge_id=charge_id, **fields
    )
    return await client.ledger.ExplainCharge(request)  # type: ignore[no-any-return]


async def explain_whole(
    client: BillingClient, charge_id: str, *, page_size: int = 1000
) -> explanation_pb2.ChargeExplanation:
    """A charge's explanation with the usage of all pages; the rest is the same on each."""
    answer = await explain(client, charge_id, page_size=page_size)
    whole = answer.explanation
    while answer.next_page_token:
        answer = await explain(
            client, charge_id, page_size=page_size, page_token=answer.next_page_token
        )
        page = answer.explanation
        if whole.HasField("usage"):
            whole.usage.usage_events.extend(page.usage.usage_events)
        else:
            whole.usage_change.taken_in_usages.extend(page.usage_change.taken_in_usages)
    return whole


async def explained_lines(
    client: BillingClient, subscription_id: str, billing_period_id: str = ""
) -> list[explanation_pb2.ChargeExplanation]:
    """The explanations of all charges, each of which adds up."""
    explained = [
        await explain_whole(client, charge.id)
        for charge in await charges_of(client, subscription_id, billing_period_id)
    ]
    for explanation in explained:
        assert_adds_up(explanation)
    return explained


async def explain_balance(
    client: BillingClient,
    subscription_id: str,
    after: datetime | None = None,
    until: datetime | None = None,
) -> balance_explanation_pb2.BalanceExplanation:
    """How a balance moved."""
    answer = await client.ledger.ExplainBalance(
        balance_explanation_pb2.ExplainBalanceRequest(
            tenant_id=client.tenant_id,
            subscription_id=subscription_id,
            posted_after=timestamp(after) if after else None,
            posted_until=timestamp(until) if until else None,
        )
    )
    return answer.explanation  # type: ignore[no-any-return]


def assert_adds_up(explained: explanation_pb2.ChargeExplanation) -> None:
    """Every level of a whole explanation adds up to the one above, figured anew from the answer."""
    kind = explained.WhichOneof("explanation")
    assert kind is not None
    _PROOFS[kind](explained.charge, getattr(explained, kind))
    if explained.charge.recalculation_id:
        assert sum(d.amount for d in explained.documents) == explained.lines_amount


def _assert_usage(charge: charge_pb2.Charge, usage: explanation_pb2.UsageExplanation) -> None:
    _assert_rated(usage.rating)
    calculation, totals = usage.calculation, usage.totals
    assert usage.rating.amount == calculation.total_raw_usage_amount == charge.amount
    assert calculation.calculation_run_id == charge.calculation_run_id
    assert totals.event_cost_amount + totals.correction_cost_amount == charge.amount
    quantity = _decimal(totals.event_quantity) + _decimal(totals.correction_quantity)
    assert quantity == _decimal(usage.rating.quantity) == _decimal(calculation.total_quantity)
    assert _decimal(charge.quantity) == _decimal(usage.rating.tiers[-1].units)
    corrections = [c for event in usage.usage_events for c in event.corrections]
    _assert_totals(totals, usage.usage_events, corrections)
    _assert_uses(usage.credit_uses)
    paid = sum(use.paid_amount for use in usage.credit_uses)
    assert paid == usage.credits_applied_amount == calculation.credits_applied_amount
    assert usage.net_amount == calculation.net_billed_amount == charge.amount - paid
    previous = calculation
    for successor in usage.superseding_calculations:
        assert previous.superseded_by_calculation_id == successor.id
        previous = successor
    for superseded in usage.superseded_calculations:
        assert superseded.superseded_by_calculation_id == calculation.id


def _assert_change(
    charge: charge_pb2.Charge, change: explanation_pb2.UsageChangeExplanation
) -> None:
    _assert_rated(change.old_rating)
    _assert_rated(change.new_rating)
    old, new, totals = change.old_calculation, change.new_calculation, change.totals
    assert charge.amount == change.new_rating.amount - change.old_rating.amount
    assert charge.amount == new.total_raw_usage_amount - old.total_raw_usage_amount
    assert charge.amount == -change.billing_adjustment.amount
    assert charge.amount == totals.event_cost_amount + totals.correction_cost_amount
    assert old.superseded_by_calculation_id == new.id
    moved = _decimal(totals.event_quantity) + _decimal(totals.correction_quantity)
    assert moved == _decimal(new.total_quantity) - _decimal(old.total_quantity)
    usages = change.taken_in_usages
    held = [each.held_event for each in usages if each.HasField("held_event")]
    corrections = [each.correction for each in usages if each.HasField("correction")]
    assert all(event.is_late and not event.corrections for event in held)
    _assert_totals(totals, held, corrections)


def _assert_recurring(
    charge: charge_pb2.Charge, recurring: explanation_pb2.RecurringExplanation
) -> None:
    assert charge.amount == recurring.base_price_amount == -recurring.entry.amount


def _assert_credit(charge: charge_pb2.Charge, credit: explanation_pb2.CreditExplanation) -> None:
    _assert_uses(credit.credit_uses)
    assert charge.amount == -sum(use.paid_amount for use in credit.credit_uses)


def _assert_deficit(charge: charge_pb2.Charge, deficit: explanation_pb2.DeficitExplanation) -> None:
    assert charge.amount == sum(each.deficit_amount for each in deficit.deficits)
    for each in deficit.deficits:
        assert each.deficit_amount == -each.entry.amount <= each.adjusted_amount


def _assert_carried(charge: charge_pb2.Charge, carried: explanation_pb2.CarriedExplanation) -> None:
    assert carried.carried_before_amount == max(0, -carried.lines_before_amount)
    assert carried.carried_after_amount == max(0, -carried.lines_after_amount)
    assert charge.amount == carried.carried_after_amount - carried.carried_before_amount
    assert carried.surplus_amount == carried.surplus_entry.amount
    if not charge.recalculation_id:
        assert carried.surplus_amount == charge.amount + carried.paid_before_amount


def _assert_rated(rating: explanation_pb2.UsageRating) -> None:
    bound = Decimal(0)
    for tier in rating.tiers:
        assert _decimal(tier.from_quantity) == bound
        bound = _decimal(tier.up_to_quantity) if tier.HasField("up_to_quantity") else bound
        cost = _decimal(tier.units) * _decimal(tier.unit_price)
        assert cost == _decimal(tier.unrounded_amount)
    assert not rating.tiers[-1].HasField("up_to_quantity")
    assert sum(_decimal(tier.units) for tier in rating.tiers) == _decimal(rating.quantity)
    unrounded = sum(_decimal(tier.unrounded_amount) for tier in rating.tiers)
    residue = _decimal(rating.rounding_residue_amount)
    assert unrounded == _decimal(rating.unrounded_amount)
    assert unrounded + residue == rating.amount
    assert -HALF <= residue <= HALF


def _assert_totals(
    totals: explanation_pb2.UsageTotals,
    events: Sequence[explanation_pb2.ExplainedUsageEvent],
    corrections: Sequence[explanation_pb2.ExplainedCorrection],
) -> None:
    assert totals.event_count == len(events) == len({event.id for event in events})
    assert _decimal(totals.event_quantity) == sum(_decimal(event.quantity) for event in events)
    assert totals.event_cost_amount == sum(event.cost_amount for event in events)
    assert totals.correction_count == len(corrections) == len({c.id for c in corrections})
    changes = (_decimal(c.quantity_after) - _decimal(c.quantity_before) for c in corrections)
    assert _decimal(totals.correction_quantity) == sum(changes)
    assert totals.correction_cost_amount == sum(c.cost_change_amount for c in corrections)


def _assert_uses(uses: Iterable[explanation_pb2.CreditUse]) -> None:
    for use in uses:
        assert use.paid_amount == use.applied_amount - use.reversed_amount
        assert len(use.applications) == min(20, use.application_count)
        if len(use.applications) == use.application_count:
            assert use.applied_amount == sum(a.applied_amount for a in use.applications)
            assert use.reversed_amount == sum(a.reversed_amount for a in use.applications)


def _decimal(message: Any) -> Decimal:
    return Decimal(message.value or 0)


_PROOFS: dict[str, Any] = {
    "usage": _assert_usage,
    "usage_change": _assert_change,
    "recurring": _assert_recurring,
    "credit": _assert_credit,
    "credit_deficit": _assert_deficit,
    "carried": _assert_carried,
}
