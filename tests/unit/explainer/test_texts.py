"""Figures and names as the explainer prints them."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.decimal_pb2 import Decimal

from billing.explainer import texts


@pytest.mark.parametrize(
    ("amount", "currency", "told"),
    [
        (0, "USD", "0.00 USD"),
        (-1230, "USD", "-12.30 USD"),
        (1500, "JPY", "1500 JPY"),
        (1234, "KWD", "1.234 KWD"),
    ],
)
def test_money_is_in_the_unit_of_its_currency(amount: int, currency: str, told: str) -> None:
    assert texts.money(amount, currency) == told


def test_a_change_has_a_sign() -> None:
    assert texts.change(5, "USD") == "+0.05 USD"
    assert texts.change(0, "USD") == "+0.00 USD"
    assert texts.change(-5, "USD") == "-0.05 USD"


@pytest.mark.parametrize(
    ("minor", "currency", "told"),
    [
        ("0.015", "USD", "0.00015 USD"),
        ("150", "USD", "1.5 USD"),
        ("-0.4", "KWD", "-0.0004 KWD"),
        ("0.015", "JPY", "0.015 JPY"),
        ("", "USD", "0 USD"),
    ],
)
def test_exact_money_keeps_every_digit(minor: str, currency: str, told: str) -> None:
    assert texts.exact_money(Decimal(value=minor), currency) == told


@pytest.mark.parametrize(
    ("value", "told"),
    [("1500.25", "1,500.25"), ("-1500", "-1,500"), ("-0.5", "-0.5"), ("", "0"), ("0", "0")],
)
def test_quantities_are_grouped(value: str, told: str) -> None:
    assert texts.quantity(Decimal(value=value)) == told


def test_moments_are_in_utc() -> None:
    message = Timestamp()
    message.FromDatetime(datetime(2026, 3, 1, 12, 0, 0, 15, tzinfo=UTC))
    assert texts.moment(message) == "2026-03-01 12:00:00.000015"


def test_counts_agree_with_their_nouns() -> None:
    assert texts.count(1, "event") == "1 event"
    assert texts.count(1200, "event") == "1,200 events"
    assert texts.count(0, "entry", "entries") == "0 entries"


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    shown = texts.line("a\x1b[31m [bold]plain[/]", "key\r\n1", "", "id").plain
    assert shown == "a\ufffd[31m [bold]plain[/]  key\ufffd\ufffd1, id"
