"""``billing usage import``: the options, and what the exit code tells."""

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
from billing.importer import options as opt
from billing.importer.progress import TerminalObserver, print_summary
from billing.importer.run import import_usage

EXIT_NOT_ALL_TAKEN: Final = 2
_INTERRUPTED: Final = "stopped: the same command goes on, and nothing is counted twice"

usage_app = typer.Typer(help="Usage events.", no_args_is_help=True)

_HELP = """Send usage events from a CSV file (with a header) or JSON lines, plain or .gz.

Importing a file again counts nothing twice, and an import that was stopped goes on where it was.

Columns: every field comes from the column of its name unless --map names another. \
Several meters from one line: one --meter each. A constant is a column that every line gets: --set.

billing usage import requests.csv --tenant acme --set subscription_id=sub_01h... \
--map event_timestamp=TIMESTAMP --time-zone UTC --meter input_tokens=ContextTokens \
--meter output_tokens=GeneratedTokens --property region=Region

Keys: with --key a column is the idempotency key, followed by the meter's code if there are \
several --meter. Without, the key is made of the whole line's content, the meter and a count of \
equal lines: so equal lines in a file are different events, and the same line in another file is \
the same event. Where it is not, tell them apart: --set host=web-1. The count needs 12 to 25 MB of \
memory a million lines.

Lines: a line is taken as a whole or not at all. A quantity of zero is sent: it is a fact.

The token comes from BILLING_TOKEN and needs billing.catalog:read and billing.usage:write.

Exit code: 0 if all events were accepted or are duplicates; 1 if the import could not begin or was \
stopped; 2 if it came to its end, but something was rejected or in conflict.
"""


FileArgument = Annotated[str, typer.Argument(help="The file; - is standard input.")]
MapOption = Annotated[
    list[str] | None,
    typer.Option(
        "--map", metavar="FIELD=COLUMN", help=f"Where a field is: {', '.join(opt.FIELDS)}."
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="COLUMN=VALUE", help="A column that every line gets."),
]
MeterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--meter",
        metavar="METER=COLUMN",
        help="A meter, by code or id, and its quantity. Without: the line's usage_meter_id "
        "(a code will do too) and quantity.",
    ),
]
PropertyOption = Annotated[
    list[str] | None,
    typer.Option("--property", metavar="NAME=COLUMN", help="A property of the events."),
]
KeyOption = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="The column of the idempotency key.")
]
FormatOption = Annotated[
    opt.FileFormat | None, typer.Option("--format", help="Else the file's name tells.")
]
DelimiterOption = Annotated[str, typer.Option(help="What separates CSV columns; tab is one.")]
TimeFormatOption = Annotated[opt.TimeFormat, typer.Option(help="How times are written.")]
TimeZoneOption = Annotated[
    str | None,
    typer.Option(help="Zone of times without one; such lines are rejected if none is given."),
]
FoldOption = Annotated[
    opt.Fold | None,
    typer.Option(help="Which moment a local time is that clocks show twice or never."),
]
BatchSizeOption = Annotated[int, typer.Option(min=1, max=opt.MAX_BATCH_SIZE, help="Events a call.")]
ConcurrencyOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=opt.MAX_CONCURRENCY,
        help="Calls at a time. Those of one subscription always come one after the other.",
    ),
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="How far it came; FILE.checkpoint if not given.")
]
NoCheckpointOption = Annotated[
    bool, typer.Option("--no-checkpoint", help="Begin at the first line, keep no checkpoint.")
]
RejectedOption = Annotated[
    Path | None,
    typer.Option(
        help="Report of lines not taken (JSON lines); FILE.rejected.jsonl if there are any."
    ),
]


@usage_app.command("import", cls=CallingCommand, help=_HELP)
def import_command(
    file: FileArgument,
    tenant: TenantOption,
    columns: MapOption = None,
    constants: SetOption = None,
    meters: MeterOption = None,
    properties: PropertyOption = None,
    key: KeyOption = None,
    file_format: FormatOption = None,
    delimiter: DelimiterOption = ",",
    time_format: TimeFormatOption = opt.TimeFormat.ISO,
    time_zone: TimeZoneOption = None,
    fold: FoldOption = None,
    batch_size: BatchSizeOption = opt.DEFAULT_BATCH_SIZE,
    concurrency: ConcurrencyOption = opt.DEFAULT_CONCURRENCY,
    checkpoint: CheckpointOption = None,
    no_checkpoint: NoCheckpointOption = False,
    rejected: RejectedOption = None,
    address: AddressOption = DEFAULT_ADDRESS,
    tls: TlsOption = None,
    root_certificates: RootCertificatesOption = None,
    token_file: TokenFileOption = None,
    quiet: QuietOption = False,
) -> None:
    notices = Console(stderr=True, highlight=False, soft_wrap=True)
    with failures_told(notices, interrupted=_INTERRUPTED):
        mapping = opt.MappingOptions(
            columns=dict(opt.pairs_of("--map", columns or ())),
            constants=dict(opt.pairs_of("--set", constants or ())),
            meters=opt.pairs_of("--meter", meters or ()),
            properties=opt.pairs_of("--property", properties or ()),
            key_column=key,
            time_format=time_format,
            time_zone=time_zone,
            fold=fold,
        )
        options = opt.ImportOptions(
            file=file,
            tenant_id=tenant,
            mapping=mapping,
            format=opt.format_of(file, file_format),
            delimiter=opt.delimiter_of(delimiter),
            batch_size=batch_size,
            concurrency=concurrency,
            checkpoint=None if no_checkpoint else checkpoint or _beside(file, "checkpoint"),
            rejected=rejected or _beside(file, "rejected.jsonl"),
            rejected_always=rejected is not None,
        )
        read_token = token_reader(token_file)
        channel = open_channel(address, tls=tls, root_certificates=root_certificates)
        with channel, TerminalObserver(notices, quiet=quiet) as observer:
            summary = import_usage(options, channel, read_token=read_token, observer=observer)
    print_summary(Console(highlight=False), summary)
    if not summary.is_clean:
        raise typer.Exit(EXIT_NOT_ALL_TAKEN)


def _beside(file: str, suffix: str) -> Path | None:
    """Return ``FILE.suffix``; nothing is beside standard input."""
    return None if file == opt.STANDARD_INPUT else Path(f"{file}.{suffix}")
