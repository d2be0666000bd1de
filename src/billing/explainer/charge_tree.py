"""Charges as trees: the line at the top, and what it consists of below."""

from rich.tree import Tree

from billing.explainer.credit_tree import add_carried, add_credit_uses, add_deficit, entry_line
from billing.explainer.texts import count, line, moment, money, words
from billing.explainer.usage_tree import add_usage, add_usage_change
from billing.v1 import calculation_pb2, catalog_pb2, explanation_pb2


def charge_tree(explained: explanation_pb2.ChargeExplanation) -> Tree:
    """Return an explanation as a tree."""
    charge = explained.charge
    currency = charge.currency
    tree = Tree(line(f"{charge.description}: {money(charge.amount, currency)}", charge.id))
    _add_origin(tree, explained)
    match explained.WhichOneof("explanation"):
        case "usage":
            add_usage(tree, explained.usage, currency)
        case "usage_change":
            add_usage_change(tree, explained.usage_change, currency)
        case "recurring":
            _add_recurring(tree, explained.recurring, currency)
        case "credit":
            add_credit_uses(tree, explained.credit.credit_uses, currency)
        case "credit_deficit":
            add_deficit(tree, explained.credit_deficit, currency)
        case "carried":
            add_carried(tree, explained.carried, currency)
    return tree


def _add_origin(tree: Tree, explained: explanation_pb2.ChargeExplanation) -> None:
    charge = explained.charge
    maker = charge.recalculation_id or charge.billing_run_id
    total = money(explained.lines_amount, charge.currency)
    origin = tree.add(
        line(
            f"billing period {moment(explained.period_start)} to {moment(explained.period_end)}, "
            f"lines of {total} in all",
            charge.billing_period_id,
            maker,
            f"invoice {explained.invoice_id}" if explained.invoice_id else "",
        )
    )
    for document in explained.documents:
        kind = calculation_pb2.RecalculationDocumentKind.Name(document.kind)
        origin.add(
            line(
                f"{words(kind, 'RECALCULATION_DOCUMENT_KIND_')} of "
                f"{money(document.amount, document.currency)}",
                document.document_id or "not delivered yet",
            )
        )


def _add_recurring(
    tree: Tree, recurring: explanation_pb2.RecurringExplanation, currency: str
) -> None:
    unit = catalog_pb2.BillingIntervalUnit.Name(recurring.interval.unit)
    length = count(recurring.interval.count, words(unit, "BILLING_INTERVAL_UNIT_"))
    tree.add(
        line(
            f"{recurring.plan_name}, version {recurring.plan_version}: "
            f"{money(recurring.base_price_amount, currency)} for {length}",
            recurring.plan_id,
            recurring.plan_version_id,
        )
    )
    tree.add(entry_line("entry", recurring.entry, currency))
