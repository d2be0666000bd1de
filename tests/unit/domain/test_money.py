"""Money is exact: one rounding rule, no silent loss, no exponent."""

from decimal import Decimal, Inexact
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain.errors import AmountOutOfRange
from billing.domain.money import (
    EXACT,
    MAX_AMOUNT_MINOR,
    checked_amount,
    grouped,
    plain,
    round_half_up,
)
from tests.factories.domain import decimals

LARGEST_QUANTITY = Decimal("999999999999999999.999999999999")
LARGEST_PRICE = Decimal("999999999999.999999999999")


@pytest.mark.parametrize(
    ("value", "amount_minor"),
    [
        ("0", 0),
        ("0.015", 0),
        ("0.499999999999999999999999", 0),
        ("0.5", 1),
        ("1.5", 2),
        ("2.5", 3),
        ("2.499999999999999999999999", 2),
        ("149.9999", 150),
        ("-0.5", -1),
        ("-2.5", -3),
        ("-2.4", -2),
        ("1E+3", 1000),
    ],
)
def test_halves_are_rounded_away_from_zero(value: str, amount_minor: int) -> None:
    assert round_half_up(Decimal(value)) == amount_minor


@given(st.decimals(min_value=-(10**15), max_value=10**15, places=12))
def test_an_amount_is_never_off_by_more_than_half(value: Decimal) -> None:
    amount_minor = round_half_up(value)
    difference = Fraction(amount_minor) - Fraction(value)
    assert abs(difference) <= Fraction(1, 2)
    if abs(difference) == Fraction(1, 2):
        assert abs(amount_minor) > abs(value)
    assert round_half_up(-value) == -amount_minor


@pytest.mark.parametrize("amount_minor", [0, 1, -1, MAX_AMOUNT_MINOR, -MAX_AMOUNT_MINOR])
def test_amounts_that_the_ledger_holds_pass(amount_minor: int) -> None:
    assert checked_amount(amount_minor) == amount_minor
    assert round_half_up(Decimal(amount_minor)) == amount_minor


@pytest.mark.parametrize("amount_minor", [MAX_AMOUNT_MINOR + 1, -MAX_AMOUNT_MINOR - 1, 10**90])
def test_an_amount_that_the_ledger_cannot_hold_is_refused_with_the_limit(amount_minor: int) -> None:
    for refuse in (checked_amount, lambda amount: round_half_up(Decimal(amount))):
        with pytest.raises(AmountOutOfRange) as refusal:
            refuse(amount_minor)
        assert refusal.value.metadata == {
            "amount": str(amount_minor),
            "limit": str(MAX_AMOUNT_MINOR),
        }


def test_half_a_unit_above_the_limit_is_refused_and_less_is_not() -> None:
    assert round_half_up(MAX_AMOUNT_MINOR + Decimal("0.4")) == MAX_AMOUNT_MINOR
    with pytest.raises(AmountOutOfRange):
        round_half_up(MAX_AMOUNT_MINOR + Decimal("0.5"))


def test_what_would_need_rounding_raises() -> None:
    with pytest.raises(Inexact):
        EXACT.divide(Decimal(1), Decimal(3))


def test_the_largest_quantity_at_the_largest_price_is_exact() -> None:
    product = EXACT.multiply(LARGEST_QUANTITY, LARGEST_PRICE)
    assert Fraction(product) == Fraction(LARGEST_QUANTITY) * Fraction(LARGEST_PRICE)


@given(decimals(whole_digits=18))
def test_plain_text_is_the_value_without_exponent_and_trailing_zeros(value: Decimal) -> None:
    text = plain(value)
    assert Decimal(text) == value
    assert set(text) <= set("0123456789.")
    assert not ("." in text and text.endswith(("0", ".")))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1.50", "1.5"),
        ("1500", "1500"),
        ("1E+3", "1000"),
        ("0E-12", "0"),
        ("0.000000000001", "0.000000000001"),
        ("100.000", "100"),
    ],
)
def test_one_value_has_one_plain_text(value: str, text: str) -> None:
    assert plain(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0"),
        ("999", "999"),
        ("1500", "1,500"),
        ("1500.250", "1,500.25"),
        ("0.015", "0.015"),
        ("1E+6", "1,000,000"),
        ("999999999999999999.999999999999", "999,999,999,999,999,999.999999999999"),
    ],
)
def test_people_read_thousands(value: str, text: str) -> None:
    assert grouped(Decimal(value)) == text
