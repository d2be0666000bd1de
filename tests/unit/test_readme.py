"""The README tells what is true."""

from pathlib import Path

from billing.config import SETTINGS

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def test_the_configuration_table_lists_every_setting() -> None:
    """The table is made of the settings themselves."""
    table = README.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0]
    assert table.splitlines()[2:] == [
        f"| `{setting.variable}` | {setting.default or ''} | {setting.meaning} |"
        for setting in SETTINGS
    ]


def test_the_two_commands_are_named() -> None:
    """A newcomer needs no others."""
    assert "make demo" in README
    assert "make test" in README
