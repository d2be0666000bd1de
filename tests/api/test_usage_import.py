"""``billing usage import`` against the real service: every line counts once, whatever happens."""
# ruff: noqa: ASYNC240  the files here are small, and nothing else waits for them

import asyncio
import csv
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest

from billing.bootstrap import RunningService
from billing.caller.calls import CallPolicy
from billing.caller.errors import CallFailed
from billing.importer.errors import CheckpointMismatched, ImportStopped
from billing.importer.options import FileFormat, MappingOptions, TimeFormat
from billing.importer.run import ImportSummary, import_usage
from billing.v1 import ledger_pb2, usage_pb2
from tests.factories.client import BillingClient, component
from tests.factories.usage_import import (
    Interrupted,
    RememberingObserver,
    import_options,
    stop_after,
    trace_mapping,
    write_trace,
)

STARTED_AT = datetime(2023, 11, 1, tzinfo=UTC)
PRICES = {"input_tokens": ("0.00005", "1000000"), "output_tokens": ("0.00015", "0")}


@dataclass(frozen=True)
class Account:
    """A subscription to both meters of the trace, and an importer for it."""

    client: BillingClient
    address: str
    subscription_id: str
    meter_ids: dict[str, str]
    plan_id: str

    async def import_file(
        self,
        file: Path,
        *,
        interrupt: Callable[[Any], None] = lambda counts: None,
        token: str | None = None,
        **changes: Any,
    ) -> ImportSummary:
        """Import a file as the command does, in a thread: the importer is synchronous."""
        mapping = changes.pop("mapping", trace_mapping(self.subscription_id))
        options = import_options(file, tenant_id=self.client.tenant_id, mapping=mapping, **changes)
        token = self.client.token if token is None else token

        def work() -> ImportSummary:
            with grpc.insecure_channel(
                self.address, options=[("grpc.enable_http_proxy", 0)]
            ) as channel:
                return import_usage(
                    options,
                    channel,
                    read_token=lambda: token,
                    observer=RememberingObserver(interrupt),
                    policy=CallPolicy(patience_seconds=2, first_patience_seconds=2),
                )

        return await asyncio.to_thread(work)

    async def usage_costs(self) -> list[ledger_pb2.LedgerEntry]:
        """The usage_cost entries, in the order they were made."""
        entries = await self.client.entries(self.subscription_id)
        return [e for e in entries if e.entry_type == ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST]

    async def sent_numbers(self, subscription_id: str) -> list[int]:
        """The numbers in the keys of a subscription's events, in the order of their arrival."""
        answer = await self.client.usage.ListUsageEvents(
            usage_pb2.ListUsageEventsRequest(
                tenant_id=self.client.tenant_id, subscription_id=subscription_id, page_size=1000
            )
        )
        return [int(e.idempotency_key.removeprefix("k-")) for e in answer.usage_events]

    def command(self, *arguments: str) -> Sequence[str]:
        """The command line of an import of the trace's shape."""
        return [
            *(sys.executable, "-m", "billing.cli", "usage", "import", *arguments),
            *("--address", self.address, "--tenant", self.client.tenant_id, "--time-zone", "UTC"),
            *("--map", "event_timestamp=TIMESTAMP"),
            *("--set", f"subscription_id={self.subscription_id}"),
            *("--meter", "input_tokens=ContextTokens"),
            *("--meter", f"{self.meter_ids['output_tokens']}=GeneratedTokens"),
        ]

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start the command."""
        return await asyncio.create_subprocess_exec(
            *self.command(*arguments),
            env={**os.environ, "BILLING_TOKEN": self.client.token},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )


@pytest.fixture
async def account(service: RunningService, client: BillingClient) -> Account:
    """A subscription since November 2023."""
    assert service.address is not None
    return await open_account(service.address, client)


async def open_account(address: str, client: BillingClient) -> Account:
    meter_ids = {code: await client.create_meter(code) for code in PRICES}
    plan_id = await client.create_plan(
        base_price_amount=2000,
        components=[
            component(meter_ids[code], name=code, unit_price=price, included=included)
            for code, (price, included) in PRICES.items()
        ],
    )
    subscription = await client.subscribe(plan_id, started_at=STARTED_AT)
    return Account(client, address, subscription.id, meter_ids, plan_id)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "requests.csv"


def charge(units: int, code: str) -> int:
    """Price times units over the included, halves up."""
    price, included = PRICES[code]
    amount = max(units - int(included), 0) * Decimal(price)
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


async def test_a_trace_becomes_its_invoice_and_a_second_import_changes_nothing(
    account: Account, file: Path
) -> None:
    input_tokens, output_tokens = write_trace(file, 1_500)
    charges = charge(input_tokens, "input_tokens") + charge(output_tokens, "output_tokens")
    assert charges > 200

    summary = await account.import_file(file)
    assert (summary.counts.lines, summary.counts.sent, summary.counts.accepted) == (
        1_500,
        3_000,
        3_000,
    )
    entries = await account.usage_costs()
    assert len(entries) == 3_000
    assert sum(entry.amount for entry in entries) == -charges

    result = await account.client.run_for_subscription(account.subscription_id)
    assert result.total_amount == 2000 + charges

    again = await account.import_file(file)
    assert (again.counts.duplicate, again.counts.accepted) == (3_000, 0)
    assert again.is_clean
    assert await account.usage_costs() == entries
    balance = await account.client.balance(account.subscription_id)
    assert balance.outstanding_amount == 2000 + charges


@pytest.mark.parametrize("stopped_after", [1, 150, 299])
async def test_an_interrupted_import_counts_each_line_once(
    account: Account, file: Path, stopped_after: int
) -> None:
    input_tokens, output_tokens = write_trace(file, 300)
    with pytest.raises(Interrupted):
        await account.import_file(file, batch_size=50, interrupt=stop_after(stopped_after))
    checkpoint = Path(f"{file}.checkpoint")
    assert checkpoint.exists()

    summary = await account.import_file(file, batch_size=64)
    assert summary.counts.lines == 300
    assert summary.counts.accepted + summary.counts.duplicate == 600
    assert summary.counts.duplicate <= 50  # the window that was on its way
    assert not checkpoint.exists()
    entries = await account.usage_costs()
    assert len({entry.source_usage_event_id for entry in entries}) == len(entries) == 600
    expected = charge(input_tokens, "input_tokens") + charge(output_tokens, "output_tokens")
    assert sum(entry.amount for entry in entries) == -expected


async def test_beginning_again_without_the_checkpoint_is_harmless(
    account: Account, file: Path
) -> None:
    write_trace(file, 200)
    with pytest.raises(Interrupted):
        await account.import_file(file, batch_size=50, interrupt=stop_after(75))
    Path(f"{file}.checkpoint").unlink()
    summary = await account.import_file(file)
    assert summary.counts.duplicate >= 150
    assert summary.counts.accepted + summary.counts.duplicate == 400
    assert len(await account.usage_costs()) == 400


async def test_rejected_lines_are_reported_and_can_be_mended(account: Account, file: Path) -> None:
    write_trace(file, 20)
    lines = file.read_text().splitlines()
    whole = list(lines)
    lines[4] = "2023-10-01 00:00:00,1,1"  # before the subscription: the service refuses both
    lines[7] = "2023-11-16 18:17:03.1,12,?"  # the importer refuses all of it
    file.write_text("\n".join(lines))
    summary = await account.import_file(file)
    assert not summary.is_clean
    assert summary.counts.accepted == 36
    assert dict(summary.counts.rejected) == {
        "EVENT_BEFORE_SUBSCRIPTION": 2,
        "QUANTITY_INVALID": 1,
    }
    report = Path(f"{file}.rejected.jsonl")
    entries = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(entry["line"], entry["reason"]) for entry in entries] == [
        (5, "EVENT_BEFORE_SUBSCRIPTION"),
        (5, "EVENT_BEFORE_SUBSCRIPTION"),
        (8, "QUANTITY_INVALID"),
    ]
    assert entries[2]["fields"]["GeneratedTokens"] == "?"
    assert all("2023-10-01" in entry["message"] for entry in entries[:2])

    file.write_text("\n".join(whole))
    mended = await account.import_file(file)
    assert mended.is_clean
    assert (mended.counts.duplicate, mended.counts.accepted) == (36, 4)
    assert not report.exists()
    assert len(await account.usage_costs()) == 40


async def test_another_reading_of_the_same_lines_is_a_conflict_not_a_second_bill(
    account: Account, file: Path
) -> None:
    write_trace(file, 10)
    await account.import_file(file)
    swapped = trace_mapping(
        account.subscription_id,
        meters=(("input_tokens", "GeneratedTokens"), ("output_tokens", "ContextTokens")),
    )
    elsewhere = trace_mapping(account.subscription_id, time_zone="Asia/Tokyo")
    for mapping in (swapped, elsewhere):
        summary = await account.import_file(file, mapping=mapping)
        assert (summary.counts.conflict, summary.counts.accepted) == (20, 0)
    assert len(await account.usage_costs()) == 20


async def test_json_lines_of_several_subscriptions_keep_their_order(
    account: Account, tmp_path: Path
) -> None:
    others = [
        await account.client.subscribe(account.plan_id, started_at=STARTED_AT) for _ in "abcde"
    ]
    subscriptions = [account.subscription_id, *(other.id for other in others)]
    file = tmp_path / "usage.jsonl"
    with file.open("w") as stream:
        for number in range(600):
            event = {
                "idempotency_key": f"k-{number}",
                "subscription_id": subscriptions[number // 7 % 6],
                "usage_meter_id": "output_tokens",
                "quantity": number / 8,
                "event_timestamp": 1_699_000_000_000 + number,
                "region": "eu",
            }
            stream.write(json.dumps(event) + "\n")
    mapping = MappingOptions(
        key_column="idempotency_key",
        time_format=TimeFormat.EPOCH_MILLIS,
        properties=(("region", "region"),),
    )
    options: dict[str, Any] = {"mapping": mapping, "format": FileFormat.JSONL, "batch_size": 40}
    assert (await account.import_file(file, **options)).counts.accepted == 600
    assert (await account.import_file(file, **options)).counts.duplicate == 600
    for subscription_id in set(subscriptions):
        numbers = await account.sent_numbers(subscription_id)
        assert numbers
        assert numbers == sorted(numbers)


async def test_a_token_without_the_right_stops_clearly(account: Account, file: Path) -> None:
    write_trace(file, 10)
    reader = account.client.with_capabilities("billing.catalog:read").token
    with pytest.raises(ImportStopped, match=r"the token does not allow this .*billing.usage:write"):
        await account.import_file(file, token=reader)
    with pytest.raises(CallFailed, match=r"the token does not allow this .*billing.catalog:read"):
        await account.import_file(
            file, token=account.client.with_capabilities("billing.usage:write").token
        )
    with pytest.raises(CallFailed, match="the service does not accept the token"):
        await account.import_file(file, token="nonsense")
    assert await account.usage_costs() == []


async def test_a_checkpoint_of_live_data_is_refused_for_test_data(
    account: Account, file: Path
) -> None:
    write_trace(file, 200)
    with pytest.raises(Interrupted):
        await account.import_file(file, batch_size=50, interrupt=stop_after(75))
    test_mode = await open_account(account.address, account.client.in_test_mode())
    with pytest.raises(CheckpointMismatched):
        await test_mode.import_file(
            file, mapping=trace_mapping(account.subscription_id), batch_size=50
        )


async def test_the_command_reads_standard_input_and_its_exit_code_tells(
    account: Account, file: Path
) -> None:
    write_trace(file, 50)
    content = file.read_bytes()
    for stdin, exit_code, text in (
        (content, 0, "accepted              100"),
        (content + b"x,1,2\r\n", 2, "line 52: TIME_INVALID: 'x' is no time"),
    ):
        process = await account.start("-")
        stdout, stderr = await process.communicate(stdin)
        assert process.returncode == exit_code, stderr
        assert text in stdout.decode()
    assert len(await account.usage_costs()) == 100


async def test_a_killed_importer_goes_on_where_it_was(account: Account, file: Path) -> None:
    write_trace(file, 3_000)
    checkpoint = Path(f"{file}.checkpoint")
    process = await account.start(str(file), "--batch-size", "50")
    while not checkpoint.exists():
        assert process.returncode is None
        await asyncio.sleep(0.005)
    process.kill()
    await process.wait()
    assert len(await account.usage_costs()) < 6_000

    process = await account.start(str(file), "--batch-size", "1000")
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr
    assert b"going on after line" in stderr
    entries = await account.usage_costs()
    assert len({entry.source_usage_event_id for entry in entries}) == len(entries) == 6_000
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = charge(sum(int(row["ContextTokens"]) for row in rows), "input_tokens")
    expected += charge(sum(int(row["GeneratedTokens"]) for row in rows), "output_tokens")
    assert sum(entry.amount for entry in entries) == -expected
