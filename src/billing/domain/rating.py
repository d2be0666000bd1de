"""Prices usage as it arrives, so that the ledger equals the invoice to the cent.

``cost(event) = round(charge(q + quantity)) - round(charge(q))``, where ``q`` is what was counted
before: the sum telescopes to ``round(charge(total))`` in whatever order events arrive, and prices
far below a cent lose nothing.
"""

from decimal import Decimal

from billing.domain.catalog import Component
from billing.domain.money import EXACT, round_half_up

ZERO = Decimal(0)


def billable_units(component: Component, quantity: Decimal) -> Decimal:
    """Return the units of a period that cost something."""
    over = EXACT.subtract(quantity, component.included_units)
    return over if over > 0 else ZERO


def charge_minor(component: Component, quantity: Decimal) -> int:
    """Return what a period's quantity costs, rounded half-up to minor units.

    Raises AmountOutOfRange where the ledger cannot hold it.
    """
    return round_half_up(EXACT.multiply(billable_units(component, quantity), component.unit_price))
