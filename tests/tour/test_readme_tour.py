"""The README's tour, command by command, against processes started as it says.

``grpcurl`` and ``jq`` may not be on the machine: stand-ins on the PATH pass the calls on to
``buf curl``, and read the few paths that the tour asks for.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories.ports import free_port

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
BIN = Path(sys.executable).parent
SECONDS = 60

GRPCURL = f"""#!{sys.executable}
import os, sys
arguments = [a for a in sys.argv[1:] if a != "-plaintext"]
headers = []
while arguments[0] == "-H":
    headers += ["--header", arguments[1]]
    arguments = arguments[2:]
flag, body, address, method = arguments
assert flag == "-d"
os.execv({str(BIN / "buf")!r}, ["buf", "curl", "--protocol", "grpc", "--http2-prior-knowledge",
    *headers, "--data", body, f"http://{{address}}/{{method}}"])
"""
JQ = f"""#!{sys.executable}
import json, re, sys
flag, path = sys.argv[1:]
assert flag == "-r"
value = json.load(sys.stdin)
for name, index in re.findall(r"\\.(\\w+)|\\[(\\d+)\\]", path):
    value = value[name] if name else value[int(index)]
print(value)
"""


def tour_block() -> str:
    """Return the tour's commands after the start of the two services."""
    block = re.search(r"```sh\n(TOKEN=.*?)```", README, re.DOTALL)
    assert block is not None
    return block.group(1)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place for data and stand-ins that PostgreSQL's unprivileged user can enter."""
    made = Path(tempfile.mkdtemp(prefix="billing-tour-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def environment(directory: Path) -> Iterator[dict[str, str]]:
    """The environment of the tour: both services run, on ports of their own."""
    tools = directory / "tools"
    tools.mkdir()
    for name, text in (("grpcurl", GRPCURL), ("jq", JQ)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith("BILLING_")},
        "PATH": f"{tools}:{BIN}:{os.environ['PATH']}",
        "BILLING_DATA_DIR": str(directory / "data"),
        "BILLING_LISTEN_ADDRESS": f"127.0.0.1:{free_port()}",
        "BILLING_INVOICING_ADDRESS": f"127.0.0.1:{free_port()}",
        "BILLING_METRICS_ADDRESS": "",
        "BILLING_LOG_LEVEL": "warning",
    }
    listen = ["--listen", variables["BILLING_INVOICING_ADDRESS"]]
    with (
        announced_process(["invoicing-server", *listen], variables),
        announced_process(["serve"], variables),
    ):
        yield variables


class announced_process:  # noqa: N801  used as a function is
    """A ``billing`` command, from its first line of output to SIGTERM."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._arguments = arguments
        self._environment = environment

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            [str(BIN / "billing"), *self._arguments],
            env={**self._environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert "listens on" in self._process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate(timeout=SECONDS)
        assert self._process.returncode == 0


def documents_in(text: str) -> list[dict[str, object]]:
    """Return the JSON documents that the tour printed, one after the other."""
    documents, decoder, rest = [], json.JSONDecoder(), text.strip()
    while rest:
        document, end = decoder.raw_decode(rest)
        documents.append(document)
        rest = rest[end:].lstrip()
    return documents


def test_every_command_of_the_tour_works(environment: dict[str, str]) -> None:
    """The values that the commands print are those that the tour's comments promise."""
    script = tour_block()
    for default, variable in (
        ("127.0.0.1:50051", "BILLING_LISTEN_ADDRESS"),
        ("127.0.0.1:50052", "BILLING_INVOICING_ADDRESS"),
    ):
        assert default in script
        script = script.replace(default, environment[variable])
    done = subprocess.run(
        [shutil.which("bash") or "/bin/bash", "-euo", "pipefail", "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ingested, granted, invoiced, owed, listed = documents_in(done.stdout)
    assert ingested["acceptedCount"] == 1
    credit = granted["usageCredit"]
    assert isinstance(credit, dict)
    assert (credit["remainingAmount"], credit["status"]) == ("100", "USAGE_CREDIT_STATUS_AVAILABLE")
    invoice = invoiced["invoice"]
    assert isinstance(invoice, dict)
    assert invoice["totalAmount"] == "2050"
    assert [(line["description"], line["amount"]) for line in invoice["lineItems"]] == [
        ("Monthly subscription - Pro Plan", "2000"),
        ("API Calls (10,000 over 1,000 included)", "150"),
        ("Credits applied", "-100"),
    ]
    balance = owed["balance"]
    assert isinstance(balance, dict)
    assert (balance["outstandingAmount"], balance["netAmount"]) == ("2050", "-2050")
    entries = listed["ledgerEntries"]
    assert isinstance(entries, list)
    usage, grant, *of_run = [(entry["entryType"], entry["amount"]) for entry in entries]
    assert usage == ("LEDGER_ENTRY_TYPE_USAGE_COST", "-150")
    assert grant == ("LEDGER_ENTRY_TYPE_CREDIT_GRANT_RECOGNIZED", "100")
    assert sorted(of_run) == [
        ("LEDGER_ENTRY_TYPE_CHARGE_BILLED", "-2000"),
        ("LEDGER_ENTRY_TYPE_CREDIT_APPLIED_TO_USAGE", "100"),
    ]
