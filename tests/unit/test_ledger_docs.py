"""What finance people read of the ledger: complete, and as the rules have it."""

import re
from pathlib import Path

from billing.api.converters.hledger import ACCOUNT_NAMES
from billing.domain.ledger import LedgerAccountKind, LedgerEntryType

DOCS = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text("utf-8")


def section(title: str) -> str:
    return DOCS.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_account_is_told_with_its_name_in_a_journal() -> None:
    told = dict(
        re.findall(r"^\| `(\w+)`.*\| `([a-z :]+?)(?::\w+_\.\.\.)?` \|$", section("Accounts"), re.M)
    )
    assert set(LedgerAccountKind) <= told.keys()
    assert told == ACCOUNT_NAMES


def test_every_type_of_entry_is_told() -> None:
    rows = [line for line in section("Entry types").splitlines() if line.startswith("| `")]
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert set(LedgerEntryType) <= told
