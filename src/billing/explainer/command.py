"""``billing explain charge|balance``: the options, and how the answer is printed."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.tree import Tree

from billing.caller.calls import CallPolicy
from billing.caller.command import (
    AddressOption,
    CallingCommand,
    RootCertificatesOption,
    TenantOption,
    TlsOption,
    TokenFileOption,
    failures_told,
)
from billing.caller.connection import DEFAULT_ADDRESS, open_channel, token_reader
from billing.caller.errors import OptionsInvalid
from billing.caller.moments import moment_of
from billing.explainer.balance_tree import balance_tree
from billing.explainer.calls import ExplanationCalls
from billing.explainer.charge_tree import charge_tree

explain_app = typer.Typer(help="Why charges and balances are what they are.", no_args_is_help=True)

_INTERRUPTED: Final = "stopped"
_DEFAULT_EVENT_COUNT: Final = 20
_MAX_EVENT_COUNT: Final = 1_000
_FILE_WIDTH: Final = 10_000
"""A file or another program gets each line as a whole; on a terminal lines are folded."""
_CHARGE_HELP: Final = """Explain an invoice line: down to usage events, credits and ledger entries.

billing explain charge charge_01h... --tenant acme

billing explain charge --tenant acme --subscription sub_01h... --period period_01h...

The second explains all lines of a billing period's invoice, and those of its recalculations.

The token comes from BILLING_TOKEN and needs billing.ledger:read.

Exit code: 0 if it was explained, else 1.
"""
_BALANCE_HELP: Final = """Explain how a balance moved between two moments: by which ledger entries.

billing explain balance --tenant acme --subscription sub_01h... --from 2026-03-01 --until 2026-04-01

Both are moments of balances, by recorded time; what was posted after the first and until the \
second is the difference.

The token comes from BILLING_TOKEN and needs billing.ledger:read.

Exit code: 0 if it was explained, else 1.
"""

ChargeArgument = Annotated[
    str, typer.Argument(metavar="[CHARGE_ID]", show_default=False, help="The charge.")
]
SubscriptionOption = Annotated[str, typer.Option("--subscription", help="The subscription.")]
PeriodOption = Annotated[
    str, typer.Option("--period", help="All lines of this billing period of --subscription.")
]
EventsOption = Annotated[
    int,
    typer.Option(
        "--events", min=1, max=_MAX_EVENT_COUNT, help="How many usage events of each line to show."
    ),
]
AllEventsOption = Annotated[bool, typer.Option("--all-events", help="Show all of them.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print what the service answers as JSON.")]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TIME",
        help="A date (its beginning in UTC) or a time; before the first entry if not given.",
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="The same; now if not given.")
]


@explain_app.command("charge", cls=CallingCommand, help=_CHARGE_HELP)
def charge_command(
    tenant: TenantOption,
    charge_id: ChargeArgument = "",
    subscription: SubscriptionOption = "",
    period: PeriodOption = "",
    events: EventsOption = _DEFAULT_EVENT_COUNT,
    all_events: AllEventsOption = False,
    as_json: JsonOption = False,
    address: AddressOption = DEFAULT_ADDRESS,
    tls: TlsOption = None,
    root_certificates: RootCertificatesOption = None,
    token_file: TokenFileOption = None,
) -> None:
    with _calls(tenant, address, tls, root_certificates, token_file) as calls:
        _require_one_choice(charge_id, subscription, period)
        charge_ids = [charge_id]
        if not charge_id:
            charge_ids = calls.list_charge_ids(
                subscription_id=subscription, billing_period_id=period
            )
            if not charge_ids:
                raise OptionsInvalid(f"--period {period}: {subscription} was charged nothing in it")
        event_count = None if all_events else events
        explained = [calls.explain_charge(each, event_count=event_count) for each in charge_ids]
    _print(explained, charge_tree, as_json=as_json, as_list=not charge_id)


@explain_app.command("balance", cls=CallingCommand, help=_BALANCE_HELP)
def balance_command(
    tenant: TenantOption,
    subscription: SubscriptionOption,
    beginning: FromOption = None,
    end: UntilOption = None,
    as_json: JsonOption = False,
    address: AddressOption = DEFAULT_ADDRESS,
    tls: TlsOption = None,
    root_certificates: RootCertificatesOption = None,
    token_file: TokenFileOption = None,
) -> None:
    with _calls(tenant, address, tls, root_certificates, token_file) as calls:
        after, until = moment_of("--from", beginning), moment_of("--until", end)
        if after is not None and until is not None and after > until:
            raise OptionsInvalid(
                f"--from {after.isoformat()} lies after --until {until.isoformat()}"
            )
        explained = calls.explain_balance(subscription, after=after, until=until)
    _print([explained], balance_tree, as_json=as_json, as_list=False)


@contextmanager
def _calls(
    tenant: str,
    address: str,
    tls: bool | None,
    root_certificates: Path | None,
    token_file: Path | None,
) -> Iterator[ExplanationCalls]:
    """Lend the way to the service; what fails is told, and ends the command."""
    notices = Console(stderr=True, highlight=False, soft_wrap=True)
    with failures_told(notices, interrupted=_INTERRUPTED):
        read_token = token_reader(token_file)
        with open_channel(address, tls=tls, root_certificates=root_certificates) as channel:
            yield ExplanationCalls(
                channel,
                tenant_id=tenant,
                read_token=read_token,
                policy=CallPolicy(),
                notice=lambda text: notices.print(text, markup=False),
            )


def _require_one_choice(charge_id: str, subscription: str, period: str) -> None:
    if charge_id and (subscription or period):
        raise OptionsInvalid("CHARGE_ID and --subscription or --period: one of them is enough")
    if not charge_id and not (subscription and period):
        raise OptionsInvalid("what to explain: CHARGE_ID, or --subscription and --period")


def _print(
    explained: Sequence[Any], to_tree: Callable[[Any], Tree], *, as_json: bool, as_list: bool
) -> None:
    if as_json:
        messages = [_to_dict(message) for message in explained]
        json.dump(messages if as_list else messages[0], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    out = Console(highlight=False)
    if not out.is_terminal:
        out = Console(highlight=False, width=_FILE_WIDTH)
    for message in explained:
        out.print(to_tree(message))


def _to_dict(message: Message) -> dict[str, Any]:
    return MessageToDict(message, always_print_fields_with_no_presence=True)
