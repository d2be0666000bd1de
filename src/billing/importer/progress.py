"""An import as a person sees it: a bar while it runs, a table at its end."""

from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from billing.importer.checkpoint import ImportCounts
from billing.importer.rejections import SHOWN
from billing.importer.run import ImportSummary


class TerminalObserver:
    """Shows a progress bar on a terminal, and nothing but notices elsewhere."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._task: TaskID | None = None

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

    def began(self, *, bytes_total: int | None) -> None:
        """Show the bar."""
        self._task = self._progress.add_task("connecting", total=bytes_total or None)

    def progressed(self, *, bytes_read: int, counts: ImportCounts) -> None:
        """Move the bar."""
        assert self._task is not None, "progress comes after the beginning"
        wrong = counts.conflict + counts.rejected_total
        self._progress.update(
            self._task,
            completed=bytes_read,
            description=f"{counts.lines:,} lines, {counts.sent:,} events"
            + (f", [yellow]{wrong:,} not taken[/]" if wrong else ""),
        )

    def noticed(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False)


def print_summary(console: Console, summary: ImportSummary) -> None:
    """Print the counts, the first rejections, and where all of them are."""
    counts = summary.counts
    table = Table(title="Usage import", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    table.add_column("count", justify="right")
    table.add_row("lines read", f"{counts.lines:,}")
    table.add_row("events sent", f"{counts.sent:,}")
    table.add_row("accepted", f"{counts.accepted:,}")
    table.add_row("duplicate", f"{counts.duplicate:,}")
    table.add_row("conflict", f"{counts.conflict:,}")
    table.add_row("rejected", f"{counts.rejected_total:,}")
    for reason, count in counts.rejected.most_common():
        table.add_row(f"  {escape(reason)}", f"{count:,}")
    rate = summary.new_events / summary.seconds if summary.seconds > 0 else 0.0
    table.add_section()
    table.add_row("seconds", f"{summary.seconds:,.1f}")
    table.add_row("events per second", f"{rate:,.0f}")
    console.print(table)
    for rejection in summary.first_rejections:
        what = f" ({rejection.meter_code})" if rejection.meter_code else ""
        text = f"line {rejection.line.number}{what}: {rejection.reason}: {rejection.message}"
        console.print(text, markup=False)
    if counts.rejected_total + counts.conflict > SHOWN and summary.first_rejections:
        console.print("...")
    if summary.report is not None:
        console.print(f"All of them: {summary.report}", markup=False)
