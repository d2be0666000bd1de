"""docs/requirements.md names a test for each line of the requirements: those tests exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)((?:::\w+)*)`")


def rows() -> list[tuple[str, str]]:
    """The table rows of the page: the requirement, and the cell with its tests."""
    text = (ROOT / "docs" / "requirements.md").read_text("utf-8")
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in text.splitlines()
        if line.startswith("|") and not re.fullmatch(r"[|\s:-]+", line)
    ]
    return [(row[0], row[-1]) for row in cells if row[-1] != "Test"]


@cache
def names_in(path: Path) -> frozenset[str]:
    """The tests of a file, as ``function``, ``Class`` and ``Class::function``."""
    tree = ast.parse(path.read_text("utf-8"))
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign):
            # A state machine's test case is made by assignment.
            names.update(target.id for target in node.targets if isinstance(target, ast.Name))
        if isinstance(node, ast.ClassDef):
            names.update(
                f"{node.name}::{inner.name}"
                for inner in node.body
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef)
            )
    return frozenset(names)


def test_there_are_requirements() -> None:
    assert len(rows()) > 50


@pytest.mark.parametrize(("requirement", "tests"), rows())
def test_each_requirement_names_tests_that_exist(requirement: str, tests: str) -> None:
    named = TEST_ID.findall(tests)
    assert named, f"no test for: {requirement}"
    for file, name in named:
        path = ROOT / file
        assert path.exists(), file
        assert not name or name.removeprefix("::") in names_in(path), f"{file}{name}"
