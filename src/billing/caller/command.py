"""What commands that call the service have in common: options, and how a failure is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from typer.core import TyperCommand

from billing.caller.errors import CallerFailed

EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2  # typer's own

TenantOption = Annotated[str, typer.Option(help="The tenant.")]
AddressOption = Annotated[str, typer.Option(help="Where the service listens.")]
TlsOption = Annotated[
    bool | None,
    typer.Option("--tls/--plaintext", help="Plaintext is the default on loopback only."),
]
RootCertificatesOption = Annotated[
    Path | None, typer.Option(help="PEM file of those that sign the service's certificate.")
]
TokenFileOption = Annotated[
    Path | None, typer.Option(help="Instead of BILLING_TOKEN; read again at every call.")
]
ClientCertificateOption = Annotated[
    Path | None,
    typer.Option(help="PEM file of the certificate to be known by, instead of a token."),
]
ClientKeyOption = Annotated[Path | None, typer.Option(help="PEM file of its private key.")]
QuietOption = Annotated[bool, typer.Option("--quiet", help="No progress bar.")]


class CallingCommand(TyperCommand):
    """Wrong usage exits with 1: commands give 2 a meaning of their own."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: Any = None,
        **extra: Any,
    ) -> Any:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except typer.TyperException as error:
            if getattr(error, "exit_code", None) == _EXIT_USAGE:
                error.exit_code = EXIT_FAILED
            raise


@contextmanager
def failures_told(
    console: Console, *, interrupted: str, exit_code: int = EXIT_FAILED
) -> Iterator[None]:
    """Tell in one line what stops a command, and exit; ``interrupted`` is told at Ctrl-C."""
    try:
        yield
    except CallerFailed as error:
        console.print(f"error: {error}", markup=False)
    except KeyboardInterrupt:
        console.print(interrupted, markup=False)
    else:
        return
    raise typer.Exit(exit_code)
