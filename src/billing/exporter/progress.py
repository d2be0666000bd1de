"""An export as a person sees it: how much has come."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from billing.exporter.run import ExportSummary


class TerminalObserver:
    """Shows progress on a terminal, and nothing but notices elsewhere."""

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
        self._task = self._progress.add_task("connecting", total=None)

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

    def progressed(self, *, entry_count: int, byte_count: int) -> None:
        """Show how much has come."""
        self._progress.update(
            self._task, description=f"{entry_count:,} entries, {decimal(byte_count)}"
        )

    def noticed(self, text: str) -> None:
        """Print a line above the progress."""
        self._console.print(text, markup=False)


def print_summary(console: Console, summary: ExportSummary, *, target: str) -> None:
    """Print how much was exported, and where it is."""
    console.print(
        f"{summary.entry_count:,} entries, {decimal(summary.byte_count)}, in "
        f"{summary.seconds:,.1f} s: {target}",
        markup=False,
    )
