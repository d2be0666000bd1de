"""Lines of usage as trees."""

from rich.text import Text
from rich.tree import Tree

from billing.explainer.credit_tree import add_credit_uses, entry_line
from billing.explainer.texts import (
    change,
    count,
    decimal_of,
    exact_money,
    line,
    moment,
    money,
    quantity,
    words,
)
from billing.v1 import calculation_pb2, explanation_pb2


def add_usage(tree: Tree, usage: explanation_pb2.UsageExplanation, currency: str) -> None:
    """Add why a billing run's line is what it is."""
    _add_rating(tree, "priced", usage.rating, currency)
    calculations = tree.add(_calculation_line("calculated", usage.calculation, currency))
    for superseded in usage.superseded_calculations:
        calculations.add(_calculation_line("replaced", superseded, currency))
    for superseding in usage.superseding_calculations:
        calculations.add(_calculation_line("replaced by", superseding, currency))
    events = tree.add(_totals_line("usage", usage.totals, currency))
    for event in usage.usage_events:
        _add_event(events, event, currency)
    _add_rest(events, usage.totals.event_count, len(usage.usage_events))
    credits_ = tree.add(line(f"credits pay {money(usage.credits_applied_amount, currency)}"))
    add_credit_uses(credits_, usage.credit_uses, currency)
    tree.add(line(f"net {money(usage.net_amount, currency)}"))


def add_usage_change(
    tree: Tree, explained: explanation_pb2.UsageChangeExplanation, currency: str
) -> None:
    """Add why a recalculation's line is what it is."""
    old, new = explained.old_rating, explained.new_rating
    _add_rating(tree, "priced before", old, currency)
    _add_rating(tree, "priced now", new, currency)
    if explained.HasField("old_calculation"):
        tree.add(_calculation_line("calculated before", explained.old_calculation, currency))
    tree.add(_calculation_line("calculated now", explained.new_calculation, currency))
    taken_in = tree.add(_totals_line("taken in", explained.totals, currency))
    for usage in explained.taken_in_usages:
        if usage.HasField("correction"):
            taken_in.add(_correction_line(usage.correction, currency, of_event=True))
        else:
            _add_event(taken_in, usage.held_event, currency)
    total = explained.totals.event_count + explained.totals.correction_count
    _add_rest(taken_in, total, len(explained.taken_in_usages))
    if explained.HasField("billing_adjustment"):
        tree.add(entry_line("billing adjustment", explained.billing_adjustment, currency))


def _add_rating(tree: Tree, label: str, rating: explanation_pb2.UsageRating, currency: str) -> None:
    units = _units(rating.quantity)
    priced = tree.add(line(f"{label}: {units} cost {money(rating.amount, currency)}"))
    for tier in rating.tiers:
        bounds = f"above {quantity(tier.from_quantity)}"
        if tier.HasField("up_to_quantity"):
            bounds += f" up to {quantity(tier.up_to_quantity)}"
        price = exact_money(tier.unit_price, currency)
        cost = exact_money(tier.unrounded_amount, currency)
        priced.add(line(f"{bounds}: {_units(tier.units)} at {price} = {cost}"))
    if decimal_of(rating.rounding_residue_amount) != 0:
        priced.add(line(f"rounding {exact_money(rating.rounding_residue_amount, currency)}"))


def _calculation_line(label: str, calculation: calculation_pb2.Calculation, currency: str) -> Text:
    kind = calculation_pb2.CalculationType.Name(calculation.calculation_type)
    status = calculation_pb2.CalculationStatus.Name(calculation.status)
    return line(
        f"{label}: {_units(calculation.total_quantity)}, "
        f"{money(calculation.total_raw_usage_amount, currency)}, "
        f"credits {money(calculation.credits_applied_amount, currency)}, "
        f"net {money(calculation.net_billed_amount, currency)}",
        calculation.id,
        words(kind, "CALCULATION_TYPE_"),
        words(status, "CALCULATION_STATUS_"),
        moment(calculation.calculated_at),
    )


def _totals_line(label: str, totals: explanation_pb2.UsageTotals, currency: str) -> Text:
    events = (
        f"{count(totals.event_count, 'event')} of {_units(totals.event_quantity)} "
        f"for {money(totals.event_cost_amount, currency)}"
    )
    if not totals.correction_count:
        return line(f"{label}: {events}")
    return line(
        f"{label}: {events}, {count(totals.correction_count, 'correction')} of "
        f"{_units(totals.correction_quantity)} "
        f"for {change(totals.correction_cost_amount, currency)}"
    )


def _add_event(tree: Tree, event: explanation_pb2.ExplainedUsageEvent, currency: str) -> None:
    added = tree.add(
        line(
            f"{moment(event.event_timestamp)}: {_units(event.quantity)}, "
            f"{money(event.cost_amount, currency)}{', late' if event.is_late else ''}",
            event.id,
            event.idempotency_key,
            event.ledger_transaction_id,
        )
    )
    for correction in event.corrections:
        added.add(_correction_line(correction, currency))


def _correction_line(
    correction: explanation_pb2.ExplainedCorrection, currency: str, *, of_event: bool = False
) -> Text:
    what = "voided" if correction.is_void else "amended"
    return line(
        f"{what}: {quantity(correction.quantity_before)} to "
        f"{_units(correction.quantity_after)}, "
        f"{change(correction.cost_change_amount, currency)}: {correction.reason}",
        correction.id,
        correction.usage_event_id if of_event else "",
        correction.ledger_transaction_id,
    )


def _add_rest(tree: Tree, total: int, shown: int) -> None:
    if total > shown:
        tree.add(line(f"and {total - shown:,} more: --all-events shows them"))


def _units(units: object) -> str:
    """Return ``1,500.25 units``."""
    return f"{quantity(units)} units"
