"""An audit as a person sees it: a line while it runs, and what it found."""

from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from billing.auditor.run import AuditSummary, check_name
from billing.v1 import ledger_audit_pb2 as pb


class TerminalObserver:
    """Shows how far an audit came on a terminal, and nothing but notices elsewhere."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._task: TaskID = self._progress.add_task("connecting", total=None)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def progressed(self, summary: AuditSummary) -> None:
        """Tell the counts."""
        found = summary.finding_count
        self._progress.update(
            self._task,
            description=f"{summary.subscription_count:,} subscriptions"
            + (f", [red]{found:,} findings[/]" if found else ""),
        )

    def noticed(self, text: str) -> None:
        """Print a line above the progress."""
        self._console.print(text, markup=False)


def print_report(console: Console, summary: AuditSummary, *, tenant_id: str) -> None:
    """Print what was found, how much each check found, and what was not looked at."""
    if summary.findings:
        console.print(_findings_table(summary))
        console.print(_counts_table(summary))
    hidden = summary.finding_count - len(summary.findings)
    if hidden > 0:
        console.print(f"{hidden:,} more findings are not shown.")
    if summary.unchecked_invoice_count:
        console.print(
            f"{summary.unchecked_invoice_count:,} invoices were not checked: "
            f"{summary.unchecked_invoice_reason}",
            markup=False,
        )
    found = f"{summary.finding_count:,} findings" if summary.finding_count else "all agree"
    console.print(
        f"{tenant_id}: {found} in {summary.subscription_count:,} subscriptions and "
        f"{summary.invoice_count:,} invoices, by {len(summary.finding_counts)} checks",
        markup=False,
    )


def _findings_table(summary: AuditSummary) -> Table:
    table = Table(title="Findings", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("check", no_wrap=True)
    table.add_column("what", ratio=1)
    table.add_column("where", no_wrap=True)
    for finding in summary.findings:
        table.add_row(
            check_name(finding.check), escape(_what(finding)), escape("\n".join(_where(finding)))
        )
    return table


def _what(finding: pb.LedgerAuditFinding) -> str:
    return f"{finding.message} {finding.currency}".strip()


def _where(finding: pb.LedgerAuditFinding) -> list[str]:
    named = [finding.subscription_id, finding.billing_period_id, *finding.resource_ids]
    return [name for name in named if name] or ["the whole tenant"]


def _counts_table(summary: AuditSummary) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("check")
    table.add_column("findings", justify="right")
    for name, count in summary.finding_counts.items():
        if count:
            table.add_row(escape(name), f"{count:,}")
    return table
