"""Balances as trees: from one to another by what moved it."""

from rich.text import Text
from rich.tree import Tree

from billing.explainer.texts import change, count, line, moment, money, words
from billing.v1 import balance_explanation_pb2 as pb


def balance_tree(explained: pb.BalanceExplanation) -> Tree:
    """Return an explanation as a tree."""
    currency = explained.currency
    moved = explained.closing.net_amount - explained.opening.net_amount
    tree = Tree(line(f"the balance moved by {change(moved, currency)}", explained.subscription_id))
    tree.add(_figures_line("opening", explained.opening, currency))
    for movement in explained.movements:
        _add_movement(tree, movement, currency)
    if not explained.movements:
        tree.add(line("nothing was posted in between"))
    tree.add(_figures_line("closing", explained.closing, currency))
    return tree


def _figures_line(label: str, figures: pb.BalanceFigures, currency: str) -> Text:
    at = moment(figures.as_of) if figures.HasField("as_of") else "before the first entry"
    return line(
        f"{label} ({at}): net {money(figures.net_amount, currency)} = "
        f"credit balance {money(figures.credit_balance_amount, currency)} - "
        f"outstanding {money(figures.outstanding_amount, currency)}"
    )


def _add_movement(tree: Tree, movement: pb.BalanceMovement, currency: str) -> None:
    added = tree.add(
        line(
            f"{words(movement.entry_type)} by {words(movement.initiating_source_type)}: "
            f"net {change(movement.net_change_amount, currency)} = "
            f"credit balance {change(movement.credit_balance_change_amount, currency)}, "
            f"outstanding {change(movement.outstanding_change_amount, currency)}",
            count(movement.entry_count, "entry", "entries"),
        )
    )
    for transaction in movement.transactions:
        added.add(
            line(
                f"{moment(transaction.posted_at)}: {change(transaction.amount, currency)}, "
                f"{transaction.description}",
                transaction.ledger_transaction_id,
                transaction.initiating_source_id,
            )
        )
    rest = movement.transaction_count - len(movement.transactions)
    if rest > 0:
        added.add(
            line(
                f"and {count(rest, 'more transaction')}: ListLedgerEntries with the entry type "
                f"LEDGER_ENTRY_TYPE_{movement.entry_type.upper()}"
            )
        )
