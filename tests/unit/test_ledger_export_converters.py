"""The ledger as text: JSON lines, CSV and a journal, to the letter."""

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from billing.api.converters.hledger import ACCOUNT_NAMES
from billing.api.converters.ledger_export import COLUMNS, decode_selection, export_writer
from billing.domain.errors import FieldInvalid
from billing.domain.ledger import (
    LedgerAccountKind,
    LedgerEntry,
    LedgerEntryStatus,
    LedgerEntryType,
    LedgerSourceType,
)
from billing.domain.ledger_export import ExportedEntry, ExportSelection
from billing.domain.money import decimal_places, in_major_unit
from billing.domain.time_ranges import TimeRange
from billing.v1 import ledger_export_pb2 as pb
from tests.factories.client import timestamp

JSON_LINES = pb.LEDGER_EXPORT_FORMAT_JSON_LINES
CSV = pb.LEDGER_EXPORT_FORMAT_CSV
HLEDGER = pb.LEDGER_EXPORT_FORMAT_HLEDGER
POSTED_AT = datetime(2026, 3, 31, 23, 59, 59, 5, tzinfo=UTC)
Z = "00000000000000000000000"


def entry_of(number: int, **changes: object) -> LedgerEntry:
    """A usage cost of 12.34 of subscription 1, in transaction 2."""
    entry = LedgerEntry(
        id=UUID(int=number),
        ledger_transaction_id=UUID(int=2),
        subscription_id=UUID(int=1),
        entry_type=LedgerEntryType.USAGE_COST,
        status=LedgerEntryStatus.POSTED,
        amount_minor=-1234,
        currency="USD",
        debit_account_id=UUID(int=5),
        debit_account_kind=LedgerAccountKind.RECEIVABLE,
        credit_account_id=UUID(int=6),
        credit_account_kind=LedgerAccountKind.USAGE_REVENUE,
        **dict.fromkeys(_optional_fields()),
        description="API calls",
        entry_timestamp=POSTED_AT - timedelta(hours=1),
        posted_at=POSTED_AT,
        discarded_at=None,
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


def _optional_fields() -> list[str]:
    names = LedgerEntry.__dataclass_fields__
    return [
        *(name for name in names if name.startswith("source_")),
        *("billing_period_id", "usage_meter_id", "calculation_run_id"),
        "applied_to_ledger_entry_id",
    ]


def exported(entry: LedgerEntry, description: str = "Usage") -> ExportedEntry:
    return ExportedEntry(entry, LedgerSourceType.USAGE_INGESTION, UUID(int=3), description)


def written(export_format: pb.LedgerExportFormat.ValueType, *pages: list[ExportedEntry]) -> str:
    writer = export_writer(export_format)
    return writer.begin() + "".join(writer.write(page) for page in pages) + writer.end()


def test_a_line_of_json_tells_everything_and_nothing_that_is_not_there() -> None:
    entry = entry_of(9, source_usage_event_id=UUID(int=4), description="Grüße")
    text = written(JSON_LINES, [exported(entry)])
    assert text.endswith("}\n")
    assert "Grüße" in text
    assert json.loads(text) == {
        "id": f"entry_{Z}009",
        "ledger_transaction_id": f"txn_{Z}002",
        "subscription_id": f"sub_{Z}001",
        "posted_at": "2026-03-31T23:59:59.000005Z",
        "entry_timestamp": "2026-03-31T22:59:59.000005Z",
        "status": "posted",
        "entry_type": "usage_cost",
        "amount": -1234,
        "amount_decimal": "-12.34",
        "currency": "USD",
        "debit_account_kind": "receivable",
        "debit_account_id": f"account_{Z}005",
        "credit_account_kind": "usage_revenue",
        "credit_account_id": f"account_{Z}006",
        "description": "Grüße",
        "source_usage_event_id": f"usage_{Z}004",
        "initiating_source_type": "usage_ingestion",
        "initiating_source_id": f"ingest_{Z}003",
        "transaction_description": "Usage",
    }


def test_csv_has_a_header_and_a_column_for_everything() -> None:
    entry = entry_of(9, description='5 "new", calls\nmore', billing_period_id=UUID(int=7))
    text = written(CSV, [exported(entry)], [exported(entry_of(10, amount_minor=0))])
    assert text.startswith("id,ledger_transaction_id,subscription_id,posted_at,")
    first, second = csv.DictReader(io.StringIO(text, newline=""))
    assert tuple(first) == COLUMNS
    assert first["description"] == '5 "new", calls\nmore'
    assert first["billing_period_id"] == f"period_{Z}007"
    assert (first["amount"], first["amount_decimal"]) == ("-1234", "-12.34")
    assert (second["amount"], second["amount_decimal"], second["source_refund_id"]) == (
        "0",
        "0.00",
        "",
    )


def test_csv_of_nothing_is_a_header() -> None:
    assert written(CSV, []) == ",".join(COLUMNS) + "\r\n"
    assert written(JSON_LINES, []) == ""


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_no_spreadsheet_runs_what_somebody_wrote(text: str) -> None:
    entry = exported(entry_of(9, description=text), description=text)
    [row] = csv.DictReader(io.StringIO(written(CSV, [entry]), newline=""))
    assert row["description"] == row["transaction_description"] == f"'{text}"
    assert json.loads(written(JSON_LINES, [entry]))["description"] == text


def test_what_is_pending_has_no_time_of_posting() -> None:
    entry = entry_of(9, status=LedgerEntryStatus.PENDING, posted_at=None)
    told = json.loads(written(JSON_LINES, [exported(entry)]))
    assert told["status"] == "pending"
    assert "posted_at" not in told


def test_a_journal_has_one_transaction_a_ledger_transaction_over_pages_too() -> None:
    payment = entry_of(
        10,
        entry_type=LedgerEntryType.PAYMENT_RECOGNIZED,
        amount_minor=50000,
        debit_account_kind=LedgerAccountKind.CASH,
        credit_account_kind=LedgerAccountKind.CREDIT,
        credit_account_id=UUID(int=8),
    )
    assert (
        written(HLEDGER, [exported(entry_of(9))], [exported(payment)])
        == f"""\
; Debits are positive, credits negative. Dates are in UTC.
decimal-mark .

commodity 1000.00 USD

2026-03-31 * (txn_{Z}002) Usage
    ; posted_at:2026-03-31T23:59:59.000005Z, source_type:usage_ingestion, \
source_id:ingest_{Z}003, subscription_id:sub_{Z}001
    assets:receivable:sub_{Z}001  12.34 USD  ; entry_id:entry_{Z}009, entry_type:usage_cost
    income:usage  -12.34 USD  ; entry_id:entry_{Z}009, entry_type:usage_cost
    assets:cash  500.00 USD  ; entry_id:entry_{Z}00a, entry_type:payment_recognized
    liabilities:credit:credit_{Z}008  -500.00 USD  ; entry_id:entry_{Z}00a, \
entry_type:payment_recognized

account assets:receivable:sub_{Z}001
account income:usage
account assets:cash
account liabilities:credit:credit_{Z}008
"""
    )


def test_what_was_posted_later_stands_at_its_own_date() -> None:
    later = entry_of(10, posted_at=POSTED_AT + timedelta(days=2))
    text = written(HLEDGER, [exported(entry_of(9)), exported(later)])
    headings = [line for line in text.splitlines() if " * (" in line]
    assert headings == [
        f"2026-03-31 * (txn_{Z}002) Usage",
        f"2026-04-02 * (txn_{Z}002) Usage",
    ]
    assert text.count("account ") == 2


def test_accounts_and_currencies_are_declared_once() -> None:
    """Those of a subscription are forgotten with it, as none of its entries come again."""
    entries = [
        exported(
            entry_of(
                10 * subscription + number,
                subscription_id=UUID(int=subscription),
                ledger_transaction_id=UUID(int=100 * subscription + number),
                currency="JPY" if subscription == 3 else "USD",
            )
        )
        for subscription in (1, 2, 3)
        for number in (1, 2)
    ]
    lines = written(HLEDGER, entries).splitlines()
    assert [line for line in lines if line.startswith("commodity")] == [
        "commodity 1000.00 USD",
        "commodity 1000. JPY",
    ]
    assert [line for line in lines if line.startswith("account")] == [
        f"account assets:receivable:sub_{Z}001",
        "account income:usage",
        f"account assets:receivable:sub_{Z}002",
        f"account assets:receivable:sub_{Z}003",
    ]


def test_a_description_stays_on_its_line_and_starts_no_comment() -> None:
    text = written(HLEDGER, [exported(entry_of(9), "a; date:2020-01-01\nb\r\x00 | c\u2028d")])
    assert f"(txn_{Z}002) a, date:2020-01-01 b  / c d\n" in text


def test_every_kind_of_account_has_a_name_of_its_own() -> None:
    assert set(LedgerAccountKind) <= ACCOUNT_NAMES.keys()
    assert len(set(ACCOUNT_NAMES.values())) == len(ACCOUNT_NAMES)
    tops = {name.split(":")[0] for name in ACCOUNT_NAMES.values()}
    assert tops == {"assets", "liabilities", "income", "expenses"}  # hledger knows these types


@pytest.mark.parametrize(
    ("amount_minor", "currency", "text"),
    [
        (-1230, "USD", "-12.30"),
        (5, "EUR", "0.05"),
        (-5, "EUR", "-0.05"),
        (0, "USD", "0.00"),
        (1500, "JPY", "1500"),
        (-1, "JPY", "-1"),
        (1234, "KWD", "1.234"),
        (10**15, "USD", "10000000000000.00"),
        (2**63 - 1, "CLF", "922337203685477.5807"),
    ],
)
def test_amounts_in_the_currency_have_its_decimals(
    amount_minor: int, currency: str, text: str
) -> None:
    assert in_major_unit(amount_minor, currency) == text


def test_currencies_have_two_decimals_unless_iso_4217_says_otherwise() -> None:
    places = {code: decimal_places(code) for code in ("USD", "JPY", "KRW", "KWD", "TND", "UYW")}
    assert places == {"USD": 2, "JPY": 0, "KRW": 0, "KWD": 3, "TND": 3, "UYW": 4}


def test_a_request_is_a_selection() -> None:
    request = pb.ExportLedgerRequest(
        tenant_id="acme",
        format=CSV,
        subscription_id=f"sub_{Z}001",
        posted_from=timestamp(POSTED_AT),
        include_pending=True,
    )
    assert decode_selection(request) == ExportSelection(
        subscription_id=UUID(int=1), span=TimeRange(POSTED_AT, None), include_pending=True
    )
    assert decode_selection(pb.ExportLedgerRequest(format=HLEDGER)) == ExportSelection()


def test_a_journal_of_pending_entries_is_refused() -> None:
    with pytest.raises(FieldInvalid, match="include_pending"):
        decode_selection(pb.ExportLedgerRequest(format=HLEDGER, include_pending=True))
