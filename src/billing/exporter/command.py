"""``billing ledger export``: the options, and what the exit code tells."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from billing.caller.command import (
    AddressOption,
    CallingCommand,
    QuietOption,
    RootCertificatesOption,
    TenantOption,
    TlsOption,
    TokenFileOption,
    failures_told,
)
from billing.caller.connection import DEFAULT_ADDRESS, open_channel, token_reader
from billing.caller.moments import moment_of
from billing.exporter.options import ExportFormat, ExportOptions, format_of
from billing.exporter.progress import TerminalObserver, print_summary
from billing.exporter.run import export_ledger

ledger_app = typer.Typer(help="The ledger.", no_args_is_help=True)

_INTERRUPTED: Final = "stopped: nothing was written"
_HELP: Final = """Write the posted entries of the ledger to a file, or to standard output.

billing ledger export --tenant acme --from 2026-03-01 --until 2026-04-01 --output march.journal

Formats: hledger is a journal of plain text accounting (hledger check --strict finds nothing wrong \
with it); csv has a row an entry, jsonl a JSON object. docs/ledger.md tells what is in them.

The file appears as a whole, in place of one of that name, or not at all; standard output gets \
nothing either before all has arrived. After a lost connection the export begins again.

The token comes from BILLING_TOKEN and needs billing.ledger:read; it is for live or for test data.

Exit code: 0 if all was written, else 1.
"""

SubscriptionOption = Annotated[
    str, typer.Option("--subscription", help="Only of this subscription, by its id.")
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from", metavar="TIME", help="Posted from this date (its beginning in UTC) or time on."
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Posted before this date or time.")
]
FormatOption = Annotated[
    ExportFormat | None,
    typer.Option("--format", help="Else the file's name tells; hledger if it does not."),
]
PendingOption = Annotated[
    bool, typer.Option("--include-pending", help="Pending entries too; not in a journal.")
]
OutputOption = Annotated[Path | None, typer.Option(help="The file; standard output if not given.")]


@ledger_app.command("export", cls=CallingCommand, help=_HELP)
def export_command(
    tenant: TenantOption,
    subscription: SubscriptionOption = "",
    posted_from: FromOption = None,
    posted_until: UntilOption = None,
    export_format: FormatOption = None,
    include_pending: PendingOption = False,
    output: OutputOption = None,
    address: AddressOption = DEFAULT_ADDRESS,
    tls: TlsOption = None,
    root_certificates: RootCertificatesOption = None,
    token_file: TokenFileOption = None,
    quiet: QuietOption = False,
) -> None:
    notices = Console(stderr=True, highlight=False, soft_wrap=True)
    with failures_told(notices, interrupted=_INTERRUPTED):
        options = ExportOptions(
            tenant_id=tenant,
            subscription_id=subscription,
            posted_from=moment_of("--from", posted_from),
            posted_until=moment_of("--until", posted_until),
            format=format_of(output, export_format),
            include_pending=include_pending,
            output=output,
        )
        read_token = token_reader(token_file)
        channel = open_channel(address, tls=tls, root_certificates=root_certificates)
        with channel, TerminalObserver(notices, quiet=quiet) as observer:
            summary = export_ledger(options, channel, read_token=read_token, observer=observer)
    if output is not None and not quiet:
        print_summary(notices, summary, target=str(output))
