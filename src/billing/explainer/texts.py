"""Figures, moments and names as people read them."""

from datetime import UTC
from decimal import Decimal
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from billing.domain.money import EXACT, decimal_places, grouped, in_major_unit, plain

_DIM: Final = "dim"
_UNPRINTABLE: Final = "\N{REPLACEMENT CHARACTER}"


def money(amount_minor: int, currency: str) -> str:
    """Return ``12.30 USD``."""
    return f"{in_major_unit(amount_minor, currency)} {currency}"


def change(amount_minor: int, currency: str) -> str:
    """Return ``+12.30 USD``, ``-12.30 USD``."""
    return f"{'+' if amount_minor >= 0 else ''}{money(amount_minor, currency)}"


def exact_money(amount_minor: Any, currency: str) -> str:
    """Return a decimal of minor units with all its digits: ``0.009075 USD``."""
    major = decimal_of(amount_minor).scaleb(-decimal_places(currency), EXACT)
    return f"{plain(major)} {currency}"


def decimal_of(message: Any) -> Decimal:
    """Return the value of a google.type.Decimal; unset is zero."""
    return Decimal(message.value or 0)


def quantity(message: Any) -> str:
    """Return ``1,500.25``."""
    value = decimal_of(message)
    return f"-{grouped(-value)}" if value < 0 else grouped(value)


def moment(message: Timestamp) -> str:
    """Return a moment in UTC: ``2026-03-01 12:00:00``, with its fraction if it has one."""
    return message.ToDatetime(tzinfo=UTC).isoformat(sep=" ").removesuffix("+00:00")


def count(number: int, noun: str, plural: str = "") -> str:
    """Return ``1 event``, ``1,200 events``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def words(name: str, prefix: str = "") -> str:
    """Return the name of an enum's value as words: ``granted promo``."""
    return name.removeprefix(prefix).replace("_", " ").lower()


def line(text: str, *details: str) -> Text:
    """Return a line of a tree, with what few need in a quieter colour.

    What others wrote may be in it: what cannot be printed is not.
    """
    shown = Text(_printable(text), overflow="fold")
    if told := [detail for detail in details if detail]:
        shown.append("  " + _printable(", ".join(told)), style=_DIM)
    return shown


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else _UNPRINTABLE for letter in text)
