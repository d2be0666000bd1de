"""docs/operations.md: its statements run, and it tells of every reason what to do."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest
import yaml

import billing.bootstrap
import billing.clients.health  # noqa: F401 - makes its errors known
from billing.config import SETTINGS
from billing.domain.errors import BillingError, ResourceNotFound

ROOT: Final = Path(__file__).parents[2]
RUNBOOK: Final = (ROOT / "docs" / "operations.md").read_text("utf-8")
STATEMENTS: Final = re.findall(r"^```sql\n(.+?)^```$", RUNBOOK, re.MULTILINE | re.DOTALL)


def errors(family: type[BillingError] = BillingError) -> Iterator[type[BillingError]]:
    """Every error of the service that is raised: families say of themselves that they are some."""
    for error in family.__subclasses__():
        yield from errors(error)
        of_ours = error.__module__.startswith(("billing.domain", "billing.api", "billing.clients"))
        is_family = (error.__doc__ or "").startswith("Family:")
        if of_ours and not is_family and error is not ResourceNotFound:
            yield error


def reason_of(error: type[BillingError]) -> str:
    """The reason of an error, without one at hand."""
    return error.__new__(error).reason


ERRORS: Final = set(errors())


def test_the_errors_are_found() -> None:
    """Those of which there are special kinds, too."""
    assert {"FIELD_INVALID", "CURRENCY_MISMATCH"} <= set(map(reason_of, ERRORS))
    assert len(ERRORS) >= 45


def test_the_statements_are_found() -> None:
    assert len(STATEMENTS) >= 14


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda text: " ".join(text.split()[:4]))
async def test_a_statement_runs_as_the_owner(database_url: str, statement: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(statement)
        await transaction.rollback()
    finally:
        await connection.close()


@pytest.mark.parametrize("reason", sorted(map(reason_of, ERRORS)))
def test_every_reason_has_its_line(reason: str) -> None:
    assert f"`{reason}`" in RUNBOOK, f"docs/operations.md does not tell what to do for {reason}"


def test_every_alert_has_its_section() -> None:
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text("utf-8"))
    alerts = [rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    sections = RUNBOOK.partition("\n## Alerts\n")[2]
    assert re.findall(r"^### (.+)$", sections, re.MULTILINE) == [rule["alert"] for rule in alerts]
    for rule in alerts:
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{anchor}"


def test_links_within_it_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)
    anchors = {heading.lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", RUNBOOK)) <= anchors


def test_every_variable_that_is_named_exists() -> None:
    known = {setting.variable for setting in SETTINGS} | set(map(reason_of, ERRORS))
    assert set(re.findall(r"`(BILLING_[A-Z_]+)[`=]", RUNBOOK)) <= known
