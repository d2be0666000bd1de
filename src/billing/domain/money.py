"""Exact money: integers in the currency's minor unit, decimals for prices, one rounding rule."""

from decimal import ROUND_HALF_UP, Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final

from billing.domain.errors import AmountOutOfRange

MAX_AMOUNT_MINOR: Final = 10**15
"""The largest amount in minor units of an entry, a charge or a period: ten trillion dollars.

Sums of thousands of them still fit the 64 bits that balances are told in.
"""

EXACT: Final = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
"""Arithmetic on prices and quantities: a result that would need rounding raises."""

_DECIMAL_PLACES: Final = {
    **dict.fromkeys(
        (
            *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
            *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""ISO 4217's exponents, of the currencies whose minor unit is not a hundredth."""

_ROUNDING: Final = Context(prec=100, rounding=ROUND_HALF_UP, traps=[InvalidOperation, Overflow])
_ONE: Final = Decimal(1)


def round_half_up(value: Decimal) -> int:
    """Round minor units to a whole amount, halves away from zero; raises AmountOutOfRange."""
    amount_minor = int(value.quantize(_ONE, context=_ROUNDING))
    return checked_amount(amount_minor)


def checked_amount(amount_minor: int) -> int:
    """Return ``amount_minor`` if the ledger can hold it; raises AmountOutOfRange."""
    if abs(amount_minor) > MAX_AMOUNT_MINOR:
        raise AmountOutOfRange(amount_minor=amount_minor, limit_minor=MAX_AMOUNT_MINOR)
    return amount_minor


def decimal_places(currency: str) -> int:
    """Return how many decimals an ISO 4217 currency has; 2 where it is not known to be other."""
    return _DECIMAL_PLACES.get(currency, 2)


def in_major_unit(amount_minor: int, currency: str) -> str:
    """Return an amount in the currency itself, with all its decimals: ``-12.30``, ``1500``."""
    places = decimal_places(currency)
    return f"{Decimal(amount_minor).scaleb(-places, EXACT):.{places}f}"


def plain(value: Decimal) -> str:
    """Return ``value`` without exponent and without trailing zeros: ``1500``, ``0.015``."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def grouped(value: Decimal) -> str:
    """Return ``value`` for people: ``1,500``, ``1,500.25``."""
    whole, point, fraction = plain(value).partition(".")
    return f"{int(whole):,}{point}{fraction}"
