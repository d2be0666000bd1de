"""``billing audit``: the options, and what the exit code tells."""

from typing import Annotated, Final

import typer
from rich.console import Console

from billing.auditor.report import TerminalObserver, print_report
from billing.auditor.run import AuditOptions, audit_books
from billing.caller.command import (
    AddressOption,
    ClientCertificateOption,
    ClientKeyOption,
    QuietOption,
    RootCertificatesOption,
    TenantOption,
    TlsOption,
    TokenFileOption,
    failures_told,
)
from billing.caller.connection import (
    DEFAULT_ADDRESS,
    client_certificate_of,
    open_channel,
    token_reader,
)

EXIT_FINDINGS: Final = 1
EXIT_NOT_DONE: Final = 2
_INTERRUPTED: Final = "stopped: nothing was changed, an audit only reads"
_WIDTH_OF_LOGS: Final = 160

AUDIT_HELP: Final = """Prove the books of a tenant: whatever is said twice in them agrees.

Entries and their sources, credits, usage, calculations, charges, snapshots, balances as they are \
served, and the invoices of the invoicing service. Nothing is changed. What a finding means, and \
what to do: docs/operations.md.

The token comes from BILLING_TOKEN and needs billing.ledger:audit. Live or test data: as the token \
says.

Exit code: 0 if all agrees; 1 if something does not; 2 if the audit could not be done. Invoices \
that could not be looked up are told, and are no finding.
"""

SubscriptionOption = Annotated[
    str, typer.Option("--subscription", metavar="SUB", help="Only this one, by id: sub_...")
]
NoInvoicesOption = Annotated[
    bool, typer.Option("--no-invoices", help="Do not compare with the invoicing service.")
]
PageSizeOption = Annotated[
    int, typer.Option(min=1, max=1000, help="How many subscriptions a call looks at.")
]


def audit_command(
    tenant: TenantOption,
    subscription: SubscriptionOption = "",
    no_invoices: NoInvoicesOption = False,
    page_size: PageSizeOption = 100,
    address: AddressOption = DEFAULT_ADDRESS,
    tls: TlsOption = None,
    root_certificates: RootCertificatesOption = None,
    client_certificate: ClientCertificateOption = None,
    client_key: ClientKeyOption = None,
    token_file: TokenFileOption = None,
    quiet: QuietOption = False,
) -> None:
    notices = Console(stderr=True, highlight=False, soft_wrap=True)
    with failures_told(notices, interrupted=_INTERRUPTED, exit_code=EXIT_NOT_DONE):
        options = AuditOptions(
            tenant_id=tenant,
            subscription_id=subscription,
            with_invoices=not no_invoices,
            page_size=page_size,
        )
        client = client_certificate_of(client_certificate, client_key)
        has_token = client is None or token_file is not None
        read_token = token_reader(token_file) if has_token else str
        channel = open_channel(
            address, tls=tls, root_certificates=root_certificates, client_certificate=client
        )
        with channel, TerminalObserver(notices, quiet=quiet) as observer:
            summary = audit_books(options, channel, read_token=read_token, observer=observer)
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=_WIDTH_OF_LOGS)
    print_report(out, summary, tenant_id=tenant)
    if summary.finding_count:
        raise typer.Exit(EXIT_FINDINGS)
