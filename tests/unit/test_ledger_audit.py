"""The checks of the audit: one name in domain, contract, statements and runbook."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from billing.api.converters.ledger_audit import audit_check
from billing.domain.ledger_audit import (
    BOOK_CHECKS,
    TENANT_CHECKS,
    LedgerAuditCheck,
    LedgerAuditFinding,
)
from billing.v1 import ledger_audit_pb2 as pb

ROOT: Final = Path(__file__).parents[2]
STATEMENTS: Final = ROOT / "src" / "billing" / "store" / "queries" / "audit"


def test_the_contract_has_every_check_and_no_other() -> None:
    encoded = {audit_check.encode(check) for check in LedgerAuditCheck}
    assert encoded == set(pb.LedgerAuditCheck.values()) - {0}


def test_every_check_but_that_of_invoices_is_one_statement() -> None:
    files = {path.stem for path in STATEMENTS.glob("*.sql")}
    assert files == set(LedgerAuditCheck) - {LedgerAuditCheck.INVOICES}
    alone = {LedgerAuditCheck.BALANCES, LedgerAuditCheck.INVOICES}
    assert {*TENANT_CHECKS, *BOOK_CHECKS} == set(LedgerAuditCheck) - alone


def test_every_statement_is_of_one_tenant_s_live_or_test_data() -> None:
    for path in STATEMENTS.glob("*.sql"):
        text = path.read_text("utf-8")
        assert text.startswith("-- "), path.name
        assert text.count("tenant_id = $1") == text.count("livemode = $2") > 0, path.name


def test_the_runbook_says_of_every_check_what_to_look_at() -> None:
    runbook = (ROOT / "docs" / "operations.md").read_text("utf-8")
    section = runbook.partition("### The audit found something")[2].partition("\n### ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([a-z_]+)`", "".join(rows))) == set(LedgerAuditCheck)


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ({}, "it is wrong"),
        ({"expected_minor": 1234, "actual_minor": -5}, "it is wrong: -5 instead of 1,234"),
        ({"expected_minor": 1234}, "it is wrong: 1,234 expected"),
        ({"actual_minor": 1234}, "it is wrong: 1,234"),
        (
            {"expected_quantity": Decimal("1500.50"), "actual_quantity": Decimal(0)},
            "it is wrong: 0 instead of 1,500.5",
        ),
    ],
    ids=["none", "both", "expected", "actual", "quantities"],
)
def test_a_finding_tells_its_figures(figures: dict[str, int | Decimal], told: str) -> None:
    finding = LedgerAuditFinding(LedgerAuditCheck.BALANCES, "it is wrong", **figures)  # type: ignore[arg-type]
    assert finding.message == told
