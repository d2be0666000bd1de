"""The ledger as a file: everything once, whatever the format, and to the cent."""

import asyncio
import csv
import io
import json
import shutil
import subprocess
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from billing.api.converters.hledger import ACCOUNT_NAMES
from billing.domain.identifiers import SUBSCRIPTION, new_id, to_typeid
from billing.v1 import ledger_export_pb2 as export_pb
from billing.v1 import ledger_pb2 as pb
from tests.factories.billing_runs import APRIL, MARCH
from tests.factories.client import BillingClient, moment, timestamp, usage_event
from tests.factories.clock import START, FakeClock
from tests.factories.journal import read_journal
from tests.factories.ledger_moves import kind_name
from tests.factories.ledger_story import DAY, LedgerStory, tell_story
from tests.factories.refusals import refusal_of

JSON_LINES = export_pb.LEDGER_EXPORT_FORMAT_JSON_LINES
CSV = export_pb.LEDGER_EXPORT_FORMAT_CSV
HLEDGER = export_pb.LEDGER_EXPORT_FORMAT_HLEDGER
POSTED = pb.LEDGER_ENTRY_STATUS_POSTED
PLACES = {"USD": 2, "JPY": 0, "KWD": 3}


@pytest.fixture
async def story(client: BillingClient, clock: FakeClock) -> LedgerStory:
    return await tell_story(client, clock)


@pytest.fixture
async def stories(client: BillingClient, clock: FakeClock) -> list[LedgerStory]:
    """The same story in currencies of two, no and three decimals."""
    told = []
    for currency in PLACES:
        clock.set(START)
        told.append(await tell_story(client, clock, currency=currency))
    return told


def request_for(
    client: BillingClient, export_format: int, **fields: Any
) -> export_pb.ExportLedgerRequest:
    return export_pb.ExportLedgerRequest(
        tenant_id=client.tenant_id,
        format=export_pb.LedgerExportFormat.ValueType(export_format),
        **fields,
    )


async def parts_of(
    client: BillingClient, export_format: int, **fields: Any
) -> list[export_pb.ExportLedgerResponse]:
    call = client.ledger.ExportLedger(request_for(client, export_format, **fields))
    return [part async for part in call]


async def exported(client: BillingClient, export_format: int, **fields: Any) -> str:
    parts = await parts_of(client, export_format, **fields)
    return b"".join(part.content for part in parts).decode()


async def exported_rows(client: BillingClient, **fields: Any) -> list[dict[str, Any]]:
    return [
        json.loads(line) for line in (await exported(client, JSON_LINES, **fields)).splitlines()
    ]


async def entries_of(stories: list[LedgerStory]) -> list[pb.LedgerEntry]:
    """All posted entries, in the order of an export."""
    entries = [
        entry
        for story in stories
        for entry in await story.client.entries(story.subscription_id)
        if entry.status == POSTED
    ]
    return sorted(entries, key=lambda e: (e.subscription_id, e.ledger_transaction_id, e.id))


async def test_json_lines_are_the_posted_entries(stories: list[LedgerStory]) -> None:
    client = stories[0].client
    rows = await exported_rows(client)
    entries = await entries_of(stories)
    assert [row["id"] for row in rows] == [entry.id for entry in entries]
    for row, entry in zip(rows, entries, strict=True):
        assert row["amount"] == entry.amount
        assert Decimal(row["amount_decimal"]).scaleb(PLACES[entry.currency]) == entry.amount
        assert f"LEDGER_ENTRY_TYPE_{row['entry_type'].upper()}" == pb.LedgerEntryType.Name(
            entry.entry_type
        )
        for side in ("debit", "credit"):
            assert row[f"{side}_account_kind"] == kind_name(getattr(entry, f"{side}_account_kind"))
        texts = {field.name: value for field, value in entry.ListFields() if isinstance(value, str)}
        assert texts.items() <= row.items()
        assert row["posted_at"] == entry.posted_at.ToJsonString()


async def test_csv_tells_the_same_as_json_lines(stories: list[LedgerStory]) -> None:
    client = stories[0].client
    rows = list(csv.DictReader(io.StringIO(await exported(client, CSV), newline="")))
    told = [{name: value for name, value in row.items() if value} for row in rows]
    lines = await exported_rows(client)
    assert told == [{name: str(value) for name, value in line.items()} for line in lines]


async def test_every_transaction_of_the_journal_and_all_of_it_sum_to_zero(
    stories: list[LedgerStory],
) -> None:
    client = stories[0].client
    journal = read_journal(await exported(client, HLEDGER))
    assert journal.commodities == {"USD": "1000.00", "JPY": "1000.", "KWD": "1000.000"}
    assert len(journal.accounts) == len(set(journal.accounts))
    entry_ids = []
    for transaction in journal.transactions:
        assert sum(amount for _, amount, _, _ in transaction.postings) == 0
        for account, amount, currency, tags in transaction.postings:
            assert account in journal.accounts
            assert -amount.as_tuple().exponent == PLACES[currency]  # type: ignore[operator]
            entry_ids.append(tags["entry_id"])
    entries = await entries_of(stories)
    assert entry_ids[::2] == entry_ids[1::2] == [entry.id for entry in entries]
    assert {t.code for t in journal.transactions} == {e.ledger_transaction_id for e in entries}


async def test_the_journal_has_the_totals_of_the_trial_balance(stories: list[LedgerStory]) -> None:
    client = stories[0].client
    journal = read_journal(await exported(client, HLEDGER))
    kinds = {name: kind for kind, name in ACCOUNT_NAMES.items()}
    totals: dict[tuple[str, str], list[Decimal]] = defaultdict(lambda: [Decimal(0), Decimal(0)])
    for (account, currency), sums in journal.totals().items():
        [kind] = [kind for name, kind in kinds.items() if f"{account}:".startswith(f"{name}:")]
        for side, amount in enumerate(sums):
            totals[kind, currency][side] += amount.scaleb(PLACES[currency])
    assert totals == {
        (kind_name(line.account_kind), line.currency): [
            Decimal(line.debit_amount),
            Decimal(line.credit_amount),
        ]
        for line in (await client.trial_balance()).lines
    }


async def test_accounts_of_the_journal_have_the_balances_of_the_accounts(
    story: LedgerStory,
) -> None:
    journal = read_journal(await exported(story.client, HLEDGER))
    balance = await story.client.balance(story.subscription_id)
    held: dict[str, int] = defaultdict(int)
    for (account, _), (debits, credits_) in journal.totals().items():
        held[account.split(":sub_")[0].split(":credit_")[0]] += int((debits - credits_) * 100)
    assert held["assets:receivable"] == balance.outstanding_amount
    assert held["liabilities:credit"] == -balance.credit_balance_amount
    assert held["assets:refund clearing"] == 0


async def test_a_transaction_stands_at_the_dates_of_its_postings(
    client: BillingClient, story: LedgerStory
) -> None:
    journal = read_journal(await exported(client, HLEDGER))
    dates = {
        tags["entry_id"]: transaction.date
        for transaction in journal.transactions
        for _, _, _, tags in transaction.postings
    }
    entries = await entries_of([story])
    assert dates == {entry.id: entry.posted_at.ToJsonString()[:10] for entry in entries}


@pytest.mark.skipif(
    shutil.which("hledger") is None, reason="hledger is not on this machine: apt install hledger"
)
async def test_hledger_finds_nothing_wrong(stories: list[LedgerStory], tmp_path: Path) -> None:
    path = tmp_path / "ledger.journal"
    path.write_text(await exported(stories[0].client, HLEDGER))

    def hledger(*arguments: str) -> str:
        done = subprocess.run(
            ["hledger", "-f", str(path), *arguments],  # noqa: S607  where it is, differs
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    await asyncio.to_thread(hledger, "check", "--strict")
    told = await asyncio.to_thread(
        hledger, "balance", "assets:receivable", "--output-format=json", "--flat"
    )
    rows, _ = json.loads(told)
    owed = {row[0]: row[3][0]["aquantity"]["floatingPoint"] for row in rows}
    for story, places in zip(stories, PLACES.values(), strict=True):
        balance = await story.client.balance(story.subscription_id)
        account = f"assets:receivable:{story.subscription_id}"
        assert round(owed[account] * 10**places) == balance.outstanding_amount


async def test_one_subscription_alone(stories: list[LedgerStory]) -> None:
    client = stories[0].client
    for story in stories:
        rows = await exported_rows(client, subscription_id=story.subscription_id)
        assert [row["id"] for row in rows] == [e.id for e in await entries_of([story])]


async def test_a_span_of_time_is_half_open_and_spans_make_the_whole(story: LedgerStory) -> None:
    client = story.client
    entries = await entries_of([story])
    cut = sorted(moment(entry.posted_at) for entry in entries)[len(entries) // 2]
    before = await exported_rows(client, posted_until=timestamp(cut))
    after = await exported_rows(client, posted_from=timestamp(cut))
    within = await exported_rows(
        client, posted_from=timestamp(MARCH), posted_until=timestamp(APRIL)
    )
    assert [r["id"] for r in before] == [e.id for e in entries if moment(e.posted_at) < cut]
    assert [r["id"] for r in after] == [e.id for e in entries if moment(e.posted_at) >= cut]
    assert [r["id"] for r in within] == [
        e.id for e in entries if MARCH <= moment(e.posted_at) < APRIL
    ]
    assert len(before) * len(after) * len(within) > 0
    nothing = await exported(client, CSV, posted_from=timestamp(cut), posted_until=timestamp(cut))
    assert nothing.count("\n") == 1


async def test_what_is_pending_comes_only_if_asked_for_and_what_is_discarded_never(
    story: LedgerStory,
) -> None:
    client = story.client
    entries = await client.entries(story.subscription_id)
    pending = {
        entry.id
        for entry in entries
        if entry.status != POSTED and not entry.HasField("discarded_at")
    }
    posted = {entry.id for entry in entries if entry.status == POSTED}
    assert pending
    assert len(pending | posted) < len(entries)
    rows = await exported_rows(client, include_pending=True)
    assert {row["id"] for row in rows if row["status"] == "pending"} == pending
    assert {row["id"] for row in rows} == pending | posted
    rows = await exported_rows(client, include_pending=True, posted_until=timestamp(APRIL))
    assert not pending & {row["id"] for row in rows}  # they were recorded later
    refusal = await refusal_of(parts_of(client, HLEDGER, include_pending=True))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["include_pending"]


async def test_a_ledger_of_thousands_comes_in_parts_and_none_of_it_twice(
    story: LedgerStory, clock: FakeClock
) -> None:
    client = story.client
    for call in range(3):
        await client.ingest(
            [
                usage_event(
                    story.subscription_id, story.meter_id, "1", clock.now, key=f"{call}-{n}"
                )
                for n in range(900)
            ]
        )
    parts = await parts_of(client, JSON_LINES)
    ids = [json.loads(line)["id"] for line in b"".join(part.content for part in parts).splitlines()]
    assert ids == [entry.id for entry in await entries_of([story])]
    assert len(parts) > 3
    assert [part.entry_count for part in parts] == sorted(part.entry_count for part in parts)
    assert parts[-1].entry_count == len(ids) > 2700
    assert all(len(part.content) < 1_000_000 for part in parts)
    journal = read_journal(await exported(client, HLEDGER))
    of_usage = [t for t in journal.transactions if len(t.postings) == 2 * 900]
    assert len(of_usage) == 3  # one a call, though parts end within


async def test_what_is_posted_during_an_export_breaks_nothing(
    story: LedgerStory, clock: FakeClock
) -> None:
    client = story.client
    await client.ingest(
        [usage_event(story.subscription_id, story.meter_id, "1", clock.now) for _ in range(2500)]
    )
    before = [entry.id for entry in await entries_of([story])]
    call = client.ledger.ExportLedger(request_for(client, JSON_LINES))
    lines: list[bytes] = []
    async for part in call:
        if not lines:
            await client.use(story.subscription_id, story.meter_id, "1", clock.now)
        lines += part.content.splitlines()
    ids = [json.loads(line)["id"] for line in lines]
    assert ids[: len(before)] == before
    assert len(ids) == len(set(ids)) <= len(before) + 1


async def test_a_tenant_without_a_ledger_has_an_empty_export(client: BillingClient) -> None:
    assert await exported(client, JSON_LINES) == ""
    assert read_journal(await exported(client, HLEDGER)).transactions == []
    assert (await exported(client, CSV)).startswith("id,")


async def test_live_and_test_data_are_exported_apart(story: LedgerStory) -> None:
    assert await exported_rows(story.client.in_test_mode()) == []


async def test_another_tenants_ledger_is_denied_before_anything_is_looked_at(
    story: LedgerStory,
) -> None:
    stranger = BillingClient(story.client.channel, story.client.key)
    fields: dict[str, Any]
    for fields in ({}, {"subscription_id": story.subscription_id}, {"subscription_id": "no id"}):
        request = request_for(story.client, CSV, **fields)
        refusal = await refusal_of(anext(aiter(stranger.ledger.ExportLedger(request))))
        assert refusal.kind == ("PERMISSION_DENIED", "TENANT_DENIED")


async def test_a_subscription_of_another_tenant_is_not_found(story: LedgerStory) -> None:
    stranger = BillingClient(story.client.channel, story.client.key)
    for subscription_id in (story.subscription_id, to_typeid(SUBSCRIPTION, new_id())):
        refusal = await refusal_of(parts_of(stranger, CSV, subscription_id=subscription_id))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
    assert await exported_rows(stranger) == []


async def test_an_export_that_ends_before_it_starts_is_refused(story: LedgerStory) -> None:
    fields = {"posted_from": timestamp(START), "posted_until": timestamp(START - DAY)}
    refusal = await refusal_of(parts_of(story.client, CSV, **fields))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["posted_from"]
    assert "posted_until" in refusal.message


async def test_an_export_needs_the_capability_to_read_the_ledger(story: LedgerStory) -> None:
    caller = story.client.with_capabilities("billing.run:read")
    refusal = await refusal_of(parts_of(caller, CSV))
    assert refusal.kind == ("PERMISSION_DENIED", "CAPABILITY_MISSING")
