"""docs/requirements.md and its pages name tests for each line of the requirements: they exist."""

import ast
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs" / "requirements.md"
PAGES = sorted((ROOT / "docs" / "requirements").glob("*.md"))
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)((?:::\w+)*)`")
LINK = re.compile(r"\]\(([^)#]+)\)")

TICKETS = {
    # Ticket: acceptance criteria, lines of test coverage, notes.
    "1": (4, 2, 3),
    "2": (4, 2, 0),
    "3": (4, 2, 3),
    "4": (4, 2, 0),
    "4.1": (4, 0, 0),
    "5": (4, 2, 3),
    "6": (4, 2, 0),
    "7": (4, 3, 2),
    "8": (5, 2, 0),
    "9": (4, 3, 0),
    "10": (6, 2, 3),
    "11": (5, 3, 0),
    "12": (6, 6, 0),
    "13": (5, 3, 0),
    "14": (5, 2, 0),
    "15": (6, 4, 10),
}
SECTIONS = {
    ("billing-runs.md", "Tasks"): 15,
    ("billing-runs.md", "Acceptance criteria"): 14,
    ("billing-runs.md", "Integration tests"): 14,
    ("game-plan.md", "Core philosophy"): 9,
    ("game-plan.md", "3.0: principles"): 10,
    ("game-plan.md", "3.1: immutability"): 6,
    **{("game-plan.md", f"3.2.{number}"): 2 for number in range(1, 9)},
    ("game-plan.md", "Answered questions"): 4,
    ("game-plan.md", "Open questions"): 5,
    ("first-game-plan.md", "4.2: new functionality"): 22,
}
"""How many lines the requirements' checklists have at least."""


class Row(NamedTuple):
    """A line of the requirements and the cell with its tests."""

    page: str
    section: str
    line: str
    tests: str


@cache
def rows() -> tuple[Row, ...]:
    """All lines of all pages."""
    found: list[Row] = []
    for page in PAGES:
        section = ""
        for line in page.read_text("utf-8").splitlines():
            if line.startswith("## "):
                section = line.removeprefix("## ")
            elif section and line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line):
                cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
                if cells != ["Line", "Test"]:
                    found.append(Row(page.name, section, " | ".join(cells[:-1]), cells[-1]))
    return tuple(found)


@cache
def sections() -> tuple[tuple[str, str], ...]:
    """Page and heading of every section."""
    return tuple(
        (page.name, line.removeprefix("## "))
        for page in PAGES
        for line in page.read_text("utf-8").splitlines()
        if line.startswith("## ")
    )


@cache
def named_tests(path: Path) -> frozenset[str]:
    """The tests of a file, as ``::function``, ``::Class`` and ``::Class::function``; the file."""
    body = ast.parse(path.read_text("utf-8")).body
    names = [f"::{name}" for name in functions_that_test(body)]
    for node in body:
        if isinstance(node, ast.Assign):
            # A state machine's test case is made by assignment.
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            names += [f"::{name}" for name in targets if name.startswith("Test")]
        if isinstance(node, ast.ClassDef) and (inner := functions_that_test(node.body)):
            names += [f"::{node.name}", *(f"::{node.name}::{name}" for name in inner)]
    return frozenset([*names, ""] if names else [])


def functions_that_test(body: Sequence[ast.stmt]) -> list[str]:
    """The names of the test functions among statements."""
    return [
        node.name
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    ]


def test_the_index_leads_to_every_page() -> None:
    linked = {INDEX.parent / target for target in LINK.findall(INDEX.read_text("utf-8"))}
    assert linked == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    gone = [
        link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()
    ]
    assert gone == []


@pytest.mark.parametrize(("page", "section"), sections())
def test_each_line_of_a_section_names_tests_that_exist(page: str, section: str) -> None:
    lines = [row for row in rows() if (row.page, row.section) == (page, section)]
    assert lines, "a section without a line"
    for row in lines:
        named = TEST_ID.findall(row.tests)
        assert named, f"no test for: {row.line}"
        assert TEST_ID.sub("", row.tests).strip(", ") == "", f"no name of a test: {row.tests}"
        gone = [
            f"{file}{name}"
            for file, name in named
            if not (ROOT / file).exists() or name not in named_tests(ROOT / file)
        ]
        assert gone == [], row.line


@pytest.mark.parametrize("ticket", TICKETS)
def test_a_ticket_is_complete(ticket: str) -> None:
    of_ticket = [
        row
        for row in rows()
        if row.page in ("records.md", "workflows.md")
        and row.section.startswith(f"Ticket {ticket}:")
    ]
    kinds = Counter(re.split("[:,]", row.line)[0] for row in of_ticket)
    assert (kinds["criterion"], kinds["test coverage"], kinds["note"]) == TICKETS[ticket]


@pytest.mark.parametrize(("page", "section"), SECTIONS)
def test_a_checklist_is_complete(page: str, section: str) -> None:
    found = [row for row in rows() if row.page == page and row.section.startswith(section)]
    assert len(found) >= SECTIONS[page, section]
    assert len({row.line for row in found}) == len(found), "a line stands twice"


def test_every_ticket_of_the_first_version_is_accounted_for() -> None:
    text = (ROOT / "docs" / "requirements" / "first-tickets.md").read_text("utf-8")
    told = [row.split("|")[1] for row in text.splitlines() if re.match(r"\| \d", row)]
    assert sorted(int(n) for cell in told for n in cell.split(",")) == list(range(1, 16))
