"""How the demonstration looks on a terminal."""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from billing.explainer.charge_tree import charge_tree
from billing.v1 import (
    billing_run_pb2,
    calculation_pb2,
    explanation_pb2,
    ledger_pb2,
    usage_credit_pb2,
)
from invoicing.v1 import invoicing_pb2

_SHOWN_ENTRIES: Final = 6
_MINOR_DIGITS: Final = {"JPY": 0}
_DEFAULT_MINOR_DIGITS: Final = 2
_OWN_ACCOUNTS: Final = frozenset(
    {
        ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE,
        ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT,
        ledger_pb2.LEDGER_ACCOUNT_KIND_REFUND_CLEARING,
    }
)


class CreditFigures(NamedTuple):
    """What a subscription has, can spend and owes, in minor units."""

    credit: int
    spendable: int
    owed: int

    @property
    def net(self) -> int:
        """What it has less what it owes."""
        return self.credit - self.owed


class CreditRow(NamedTuple):
    """What happened, and the figures after it."""

    text: str
    figures: CreditFigures


class StatementRow(NamedTuple):
    """What moved a balance, how often, and by how much in minor units."""

    text: str
    movement_count: int | None
    amount: int


class DemoReport:
    """Prints the steps with their times, and what they led to."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()

    def begin(self) -> None:
        """Say what is going to happen."""
        self._console.print(
            Panel(
                "A month of usage becomes a ledger, a billing run and invoices;\n"
                "credits, payments and a refund; a billed month is put right:\n"
                "for real, over gRPC and PostgreSQL, on loopback.",
                title="billing-service",
                expand=False,
            )
        )

    def end(self) -> None:
        """Say how long it took."""
        seconds = time.monotonic() - self._began
        self._console.print(f"\n[bold green]Done[/] in {seconds:.1f} s; nothing is left running.")

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Print a step and its time."""
        began = time.monotonic()
        with self._console.status(name):
            yield
        seconds = time.monotonic() - began
        self._console.print(f"[green]✓[/] {name} [dim]{seconds:.2f} s[/]")

    def usage(self, outcomes: Mapping[str, int]) -> None:
        """Print how many events had which outcome."""
        counts = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.items())
        self._console.print(f"  {counts}")

    def run(
        self,
        run: billing_run_pb2.BillingRun,
        results: Sequence[billing_run_pb2.BillingRunResult],
        *,
        title: str,
    ) -> None:
        """Print a run and its results by outcome."""
        table = _table(title, "outcome", "results", "billed", "reason")
        status = billing_run_pb2.BillingRunStatus.Name(run.status).removeprefix(
            "BILLING_RUN_STATUS_"
        )
        groups: dict[tuple[str, str], list[billing_run_pb2.BillingRunResult]] = {}
        for result in results:
            outcome = billing_run_pb2.BillingRunResultStatus.Name(result.status)
            key = (outcome.removeprefix("BILLING_RUN_RESULT_STATUS_"), result.error_reason)
            groups.setdefault(key, []).append(result)
        for (outcome, reason), members in sorted(groups.items()):
            totals: Counter[str] = Counter()
            for member in members:
                totals[member.currency] += member.total_amount
            billed = "  ".join(_money(total, currency) for currency, total in totals.items())
            table.add_row(outcome, f"{len(members):,}", billed, reason)
        if not groups:
            table.add_row("nothing was due", "0", "", "")
        table.caption = f"{run.id}: {status}"
        self._console.print(table)
        for result in results:
            if result.error_message:
                self._console.print(f"  [yellow]{result.error_reason}[/] {result.error_message}")

    def invoice(self, invoice: invoicing_pb2.Invoice) -> None:
        """Print an invoice in full."""
        table = _table("One invoice, as the invoicing service has it", "line")
        table.add_column("quantity", justify="right")
        table.add_column("unit price", justify="right")
        table.add_column("amount", justify="right")
        for line in invoice.line_items:
            table.add_row(
                line.description,
                line.quantity.value,
                line.unit_price.value,
                _money(line.amount, invoice.currency),
            )
        table.add_section()
        table.add_row("Total", "", "", _money(invoice.total_amount, invoice.currency))
        due = invoice.due_date
        table.caption = (
            f"{invoice.id} for {invoice.customer_id}, "
            f"{invoice.period_start.ToDatetime():%Y-%m-%d} to "
            f"{invoice.period_end.ToDatetime():%Y-%m-%d}, "
            f"due {due.year}-{due.month:02}-{due.day:02}"
        )
        self._console.print(table)

    def ledger(
        self, entries: Sequence[ledger_pb2.LedgerEntry], balance: ledger_pb2.Balance
    ) -> None:
        """Print a subscription's ledger: its first and last entries, and its balance."""
        table = _table("The same subscription's ledger")
        table.add_column("entry", no_wrap=True, max_width=28)
        table.add_column("debit", no_wrap=True)
        table.add_column("credit", no_wrap=True)
        table.add_column("amount", justify="right", no_wrap=True)
        head, tail = entries[:_SHOWN_ENTRIES], entries[-1:]
        for entry in head:
            table.add_row(*_entry_row(entry))
        hidden = entries[len(head) : -1]
        if hidden:
            amount = _money(net_amount(hidden), balance.currency)
            table.add_row(f"... {len(hidden):,} more, net", "", "", amount)
            table.add_row(*_entry_row(tail[0]))
        table.add_section()
        net = _money(net_amount(entries), balance.currency)
        table.add_row(f"{len(entries):,} entries, net", "", "", net)
        table.caption = (
            f"GetBalance: owes {_money(balance.outstanding_amount, balance.currency)}, "
            f"invoiced {_money(balance.invoiced_amount, balance.currency)}, "
            f"net {_money(balance.net_amount, balance.currency)}\n"
            "A credit that pays moves value from what it has to what it owes: "
            "the net stays"
        )
        self._console.print(table)

    def credit_story(self, rows: Sequence[CreditRow], currency: str) -> None:
        """Print what happened to a subscription's credits, and the balance after each step."""
        table = _table(f"What it has, can spend and owes ({currency})", "what happens")
        for column in ("credit", "spendable", "owed", "net"):
            table.add_column(column, justify="right", no_wrap=True)
        for text, figures in rows:
            amounts = [figure(amount) for amount in (*figures, figures.net)]
            table.add_row(text, *amounts)
        table.caption = "each figure was foreseen, and is what GetBalance says"
        self._console.print(table)

    def credits(
        self, credits_: Sequence[usage_credit_pb2.UsageCredit], used: Mapping[str, int]
    ) -> None:
        """Print credits and what became of them; ``used`` is by credit."""
        table = _table("Its credits", "credit")
        for column in ("issued", "used", "gone", "left"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("status", no_wrap=True)
        for credit in credits_:
            left = credit.remaining_amount + credit.held_amount
            gone = credit.issued_amount - used[credit.id] - left
            table.add_row(
                _words(usage_credit_pb2.UsageCreditType.Name(credit.credit_type), "TYPE_"),
                *[figure(each) for each in (credit.issued_amount, used[credit.id], gone, left)],
                _words(usage_credit_pb2.UsageCreditStatus.Name(credit.status), "STATUS_"),
            )
        table.caption = "gone: expired, or taken back by the refund"
        self._console.print(table)

    def recalculation(self, recalculation: calculation_pb2.Recalculation) -> None:
        """Print what a recalculation changed, and what the invoicing service has of it."""
        currency = recalculation.currency
        [document] = recalculation.documents
        kind = calculation_pb2.RecalculationDocumentKind.Name(document.kind)
        self._console.print(
            f"  usage {_money(recalculation.raw_change_amount, currency)}, "
            f"net {_money(recalculation.net_change_amount, currency)}: "
            f"{_words(kind, 'KIND_')} {document.document_id}"
        )

    def statements(
        self, before: Sequence[StatementRow], after: Sequence[StatementRow], currency: str
    ) -> None:
        """Print the statement of a billing period, before and after it was put right."""
        table = _table(f"The statement of that period, before and after ({currency})", "movements")
        for column in ("number", "before", "after"):
            table.add_column(column, justify="right", no_wrap=True)
        amounts = {row.text: row.amount for row in before}
        for text, count, amount in after:
            was = figure(amounts[text]) if text in amounts else ""
            table.add_row(text, "" if count is None else f"{count:,}", was, figure(amount))
        table.caption = "nothing was rewritten: the correction is an entry of its own"
        self._console.print(table)

    def explanation(self, explained: explanation_pb2.ChargeExplanation) -> None:
        """Print where an invoice line comes from."""
        self._console.print("One line of that invoice, explained (billing explain)\n")
        self._console.print(charge_tree(explained))

    def trial_balance(self, balance: ledger_pb2.GetTrialBalanceResponse) -> None:
        """Print the tenant's debits and credits."""
        table = _table("Trial balance", "account", "currency")
        table.add_column("debit", justify="right")
        table.add_column("credit", justify="right")
        for line in balance.lines:
            table.add_row(
                _kind(line.account_kind),
                line.currency,
                _money(line.debit_amount, line.currency),
                _money(line.credit_amount, line.currency),
            )
        table.caption = f"debits less credits: {balance.difference_amount}"
        self._console.print(table)

    def unchanged(self, invoice_count: int) -> None:
        """Say that the second run billed nothing twice."""
        self._console.print(
            f"[green]✓[/] The ledger is the same to the cent, and the {invoice_count:,} periods "
            "still have one invoice each: nothing was billed twice."
        )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    for column in columns:
        table.add_column(column)
    return table


def _entry_row(entry: ledger_pb2.LedgerEntry) -> tuple[str, str, str, str]:
    return (
        entry.description,
        _kind(entry.debit_account_kind),
        _kind(entry.credit_account_kind),
        _money(entry.amount, entry.currency),
    )


def _kind(kind: ledger_pb2.LedgerAccountKind.ValueType) -> str:
    name = ledger_pb2.LedgerAccountKind.Name(kind).removeprefix("LEDGER_ACCOUNT_KIND_")
    return name.lower().replace("_revenue", " rev.").replace("_", " ")


def _words(name: str, prefix: str) -> str:
    """Return the value of an enum for people."""
    return name.partition(prefix)[2].lower().replace("_", " ")


def net_amount(entries: Iterable[ledger_pb2.LedgerEntry]) -> int:
    """Return what entries move into and out of what a subscription has less what it owes.

    What moves between the two of them, as a credit that pays, changes nothing.
    """
    return sum(
        entry.amount
        for entry in entries
        if (entry.debit_account_kind in _OWN_ACCOUNTS)
        != (entry.credit_account_kind in _OWN_ACCOUNTS)
    )


def figure(amount_minor: int, *, digits: int = _DEFAULT_MINOR_DIGITS) -> str:
    """Return an amount for people, without its currency."""
    sign = "-" if amount_minor < 0 else ""
    whole, fraction = divmod(abs(amount_minor), 10**digits)
    text = f"{sign}{whole:,}"
    return f"{text}.{fraction:0{digits}d}" if digits else text


def _money(amount_minor: int, currency: str) -> str:
    """Return an amount for people; the sandbox's currencies only."""
    digits = _MINOR_DIGITS.get(currency, _DEFAULT_MINOR_DIGITS)
    return f"{figure(amount_minor, digits=digits)} {currency}"
