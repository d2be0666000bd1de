"""Lines about credits as trees."""

from collections.abc import Iterable

from rich.text import Text
from rich.tree import Tree

from billing.explainer.texts import change, count, line, moment, money, words
from billing.v1 import explanation_pb2, usage_credit_pb2


def add_credit_uses(tree: Tree, uses: Iterable[explanation_pb2.CreditUse], currency: str) -> None:
    """Add what each credit pays, with its applications."""
    for use in uses:
        kind = usage_credit_pb2.UsageCreditType.Name(use.credit_type)
        expiry = f"expires {moment(use.expires_at)}" if use.HasField("expires_at") else ""
        added = tree.add(
            line(
                f"{words(kind, 'USAGE_CREDIT_TYPE_')} pays {money(use.paid_amount, currency)}"
                f"{_reversed(use, currency)}",
                use.usage_credit_id,
                use.source_reference_id,
                expiry,
            )
        )
        for application in use.applications:
            added.add(_application_line(application, currency))
        rest = use.application_count - len(use.applications)
        if rest > 0:
            added.add(line(f"and {count(rest, 'more application')}: ListCreditApplications"))


def add_deficit(tree: Tree, deficit: explanation_pb2.DeficitExplanation, currency: str) -> None:
    """Add what could not be taken back."""
    for each in deficit.deficits:
        added = tree.add(
            line(
                f"{money(each.deficit_amount, currency)} of "
                f"{money(each.adjusted_amount, currency)} could not be taken back: {each.reason}",
                each.usage_credit_id,
                each.credit_balance_adjustment_id,
                each.refund_id,
            )
        )
        added.add(entry_line("entry", each.entry, currency))


def add_carried(tree: Tree, carried: explanation_pb2.CarriedExplanation, currency: str) -> None:
    """Add what the other lines are below zero."""
    tree.add(line(f"the other lines before: {money(carried.lines_before_amount, currency)}"))
    tree.add(line(f"the other lines now: {money(carried.lines_after_amount, currency)}"))
    tree.add(
        line(
            f"below zero: {money(carried.carried_before_amount, currency)} before, "
            f"{money(carried.carried_after_amount, currency)} now"
        )
    )
    for label, amount in (
        ("payments had paid before", carried.paid_before_amount),
        ("payments released to credit", carried.released_amount),
        ("write-offs recovered", carried.recovered_amount),
    ):
        if amount:
            tree.add(line(f"{label}: {money(amount, currency)}"))
    if carried.surplus_usage_credit_id:
        surplus = tree.add(
            line(
                f"surplus credit of {money(carried.surplus_amount, currency)}",
                carried.surplus_usage_credit_id,
            )
        )
        surplus.add(entry_line("entry", carried.surplus_entry, currency))


def entry_line(label: str, entry: explanation_pb2.ExplainedEntry, currency: str) -> Text:
    """Return an entry as a line."""
    return line(
        f"{label} {change(entry.amount, currency)}",
        entry.id,
        entry.ledger_transaction_id,
        moment(entry.posted_at),
    )


def _reversed(
    use: explanation_pb2.CreditUse | explanation_pb2.ExplainedApplication, currency: str
) -> str:
    """Tell what was taken back, where something was."""
    told = ""
    if use.reversed_amount:
        applied = money(use.applied_amount, currency)
        told += f": {applied} less {money(use.reversed_amount, currency)} taken back"
    if use.reversed_since_amount:
        told += f"; taken back since {money(use.reversed_since_amount, currency)}"
    return told


def _application_line(application: explanation_pb2.ExplainedApplication, currency: str) -> Text:
    kind = usage_credit_pb2.CreditApplicationKind.Name(application.kind)
    span = ""
    if application.HasField("usage_from"):
        span = f"usage {moment(application.usage_from)} to {moment(application.usage_until)}"
    return line(
        f"{money(application.applied_amount - application.reversed_amount, currency)}"
        f"{_reversed(application, currency)}",
        application.id,
        words(kind, "CREDIT_APPLICATION_KIND_"),
        span,
        application.component_id,
        application.ledger_transaction_id,
    )
