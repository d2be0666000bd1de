"""The bill of one period: charges, calculations, total, and the invoice to ask for."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain import identifiers
from billing.domain.billing import (
    ChargeType,
    PeriodBill,
    bill_period,
    interval_label,
    usage_description,
)
from billing.domain.catalog import BillingInterval, Component, IntervalUnit, PlanVersion
from billing.domain.errors import AmountOutOfRange, UsageDiffersFromLedger
from billing.domain.invoices import InvoiceLineItem
from billing.domain.money import MAX_AMOUNT_MINOR
from billing.domain.periods import SHORTEST_SPAN
from billing.domain.rating import billable_units, charge_minor
from billing.domain.scope import Scope
from billing.domain.usage import UsageTally
from tests.factories.domain import (
    a_component,
    a_subscription,
    a_version,
    decimals,
    no_credits,
    open_periods_of,
)

SCOPE = Scope("acme", livemode=False)
BILLED_AT = datetime(2026, 2, 1, 3, 0, tzinfo=UTC)


def bill(version: PlanVersion, tallies: Mapping[UUID, UsageTally] | None = None) -> PeriodBill:
    """Bill the first period of a new subscription to the version, without credits."""
    open_periods = open_periods_of(version)
    return bill_period(
        SCOPE,
        a_subscription(open_periods),
        open_periods.oldest,
        version,
        tallies or {},
        no_credits(),
        billed_at=BILLED_AT,
    )


def used(component: Component, *quantities: Decimal | str) -> UsageTally:
    """The aggregate of a component that was used."""
    tally = UsageTally(identifiers.new_id(), identifiers.new_id(), component)
    for quantity in quantities:
        tally.add(Decimal(quantity))
    return tally


def test_a_period_cut_before_it_began_has_its_usage_and_no_price() -> None:
    """A cancellation by a server whose clock is behind the one that billed."""
    component = a_component(unit_price="2")
    version = a_version(component, a_component(), base_price_minor=2000)
    open_periods = open_periods_of(version)
    stub = replace(open_periods.oldest, period_end=open_periods.oldest.period_start + SHORTEST_SPAN)
    subscription = a_subscription(open_periods)
    usage = {component.id: used(component, "10")}
    with_usage, empty = (
        bill_period(SCOPE, subscription, stub, version, tallies, no_credits(), billed_at=BILLED_AT)
        for tallies in (usage, {})
    )
    assert [charge.amount_minor for charge in with_usage.charges] == [20]
    assert with_usage.total_minor == 20
    assert not empty.charges
    assert empty.invoice_request is None


@pytest.mark.parametrize(
    ("unit", "count", "label"),
    [
        ("day", 1, "Daily"),
        ("week", 1, "Weekly"),
        ("month", 1, "Monthly"),
        ("year", 1, "Yearly"),
        ("month", 3, "3-month"),
        ("day", 10, "10-day"),
    ],
)
def test_intervals_have_names(unit: str, count: int, label: str) -> None:
    assert interval_label(BillingInterval(IntervalUnit(unit), count)) == label


@pytest.mark.parametrize(
    ("included", "quantity", "description"),
    [
        ("1000", "2500", "API Calls (1,500 over 1,000 included)"),
        ("1000", "999", "API Calls (0 over 1,000 included)"),
        ("1000", "0", "API Calls (0 over 1,000 included)"),
        ("0", "10000", "API Calls (10,000)"),
        ("0", "0", "API Calls (0)"),
        ("0.5", "1234.75", "API Calls (1,234.25 over 0.5 included)"),
    ],
)
def test_a_usage_line_says_what_is_charged_first(
    included: str, quantity: str, description: str
) -> None:
    component = a_component(included=included)
    assert usage_description(component, Decimal(quantity)) == description


def test_a_period_is_billed_with_base_price_and_usage() -> None:
    component = a_component(included="1000")
    version = a_version(component)
    billed = bill(version, {component.id: used(component, "500", "10500")})
    recurring, usage = billed.charges
    assert (recurring.charge_type, recurring.component_id) == (ChargeType.RECURRING, None)
    assert recurring.description == "Monthly subscription - Pro Plan"
    assert (recurring.quantity, recurring.unit_price) == (Decimal(1), Decimal(2000))
    assert recurring.amount_minor == 2000
    assert (usage.charge_type, usage.component_id) == (ChargeType.USAGE, component.id)
    assert usage.description == "API Calls (10,000 over 1,000 included)"
    assert usage.quantity == 10_000
    assert usage.unit_price == Decimal("0.015")
    assert usage.amount_minor == 150
    assert billed.total_minor == billed.receivable_minor == 2150
    assert billed.recurring_charges == (recurring,)
    assert (recurring.ledger_entry_id is None, usage.ledger_entry_id) == (False, None)
    assert (billed.applications, billed.expiries, billed.surplus_minor) == ((), (), 0)


def test_a_calculation_is_a_positive_snapshot_of_each_component() -> None:
    busy, idle = a_component(included="1000"), a_component(name="Storage")
    billed = bill(a_version(busy, idle), {busy.id: used(busy, "11000")})
    first, second = billed.calculations
    assert (first.component_id, first.usage_meter_id) == (busy.id, busy.usage_meter_id)
    assert (first.total_quantity, first.billable_quantity) == (Decimal(11_000), Decimal(10_000))
    assert first.unit_price == Decimal("0.015")
    assert (first.total_raw_usage_minor, first.credits_applied_minor) == (150, 0)
    assert first.net_billed_minor == 150
    assert (second.component_id, second.total_quantity) == (idle.id, Decimal(0))
    assert (second.total_raw_usage_minor, second.net_billed_minor) == (0, 0)


def test_the_invoice_says_what_the_charges_say() -> None:
    component = a_component()
    version = a_version(component)
    billed = bill(version, {component.id: used(component, "10000")})
    request = billed.invoice_request
    assert request is not None
    assert request.line_items == (
        InvoiceLineItem("Monthly subscription - Pro Plan", Decimal(1), Decimal(2000), 2000),
        InvoiceLineItem("API Calls (10,000)", Decimal(10_000), Decimal("0.015"), 150),
    )
    assert request.total_minor == billed.total_minor == 2150
    assert (request.tenant_id, request.livemode) == ("acme", False)
    assert (request.customer_id, request.currency) == ("cus-1", "USD")
    assert (request.issue_date, request.due_date) == (date(2026, 2, 1), date(2026, 3, 3))
    assert request.subscription_id == billed.subscription.id
    assert (request.period_start, request.period_end) == (
        billed.period.period_start,
        billed.period.period_end,
    )


def test_every_attempt_at_a_period_asks_for_the_same_invoice() -> None:
    version = a_version()
    open_periods = open_periods_of(version)
    subscription = a_subscription(open_periods)
    keys = set()
    for _ in range(2):
        billed = bill_period(
            SCOPE, subscription, open_periods.oldest, version, {}, no_credits(), billed_at=BILLED_AT
        )
        assert billed.invoice_request is not None
        keys.add(billed.invoice_request.idempotency_key)
    assert keys == {identifiers.to_typeid(identifiers.BILLING_PERIOD, open_periods.oldest.id)}


def test_unused_components_still_have_their_lines() -> None:
    components = (a_component(), a_component(name="Storage", included="5"))
    billed = bill(a_version(*components, base_price_minor=0))
    assert [charge.description for charge in billed.charges] == [
        "API Calls (0)",
        "Storage (0 over 5 included)",
    ]
    assert billed.total_minor == 0
    assert billed.invoice_request is not None


def test_nothing_to_say_is_no_invoice() -> None:
    billed = bill(a_version(base_price_minor=0))
    assert (billed.charges, billed.calculations, billed.total_minor) == ((), (), 0)
    assert billed.invoice_request is None
    assert not billed.posts_entries


def test_usage_that_is_not_what_the_ledger_holds_is_never_billed() -> None:
    component = a_component(unit_price="2")
    tally = used(component, "10")
    tally.rated_minor += 1
    with pytest.raises(UsageDiffersFromLedger) as refusal:
        bill(a_version(component), {component.id: tally})
    assert refusal.value.metadata == {
        "component_id": identifiers.to_typeid(identifiers.COMPONENT, component.id),
        "charge": "20",
        "rated": "21",
    }


def test_a_total_that_no_invoice_can_hold_is_refused() -> None:
    component = a_component(unit_price="1")
    tallies = {component.id: used(component, str(MAX_AMOUNT_MINOR))}
    assert bill(a_version(component, base_price_minor=0), tallies).total_minor == MAX_AMOUNT_MINOR
    with pytest.raises(AmountOutOfRange):
        bill(a_version(component, base_price_minor=1), tallies)


@given(
    st.integers(0, 10**14),
    st.lists(
        st.tuples(
            decimals(whole_digits=4),
            decimals(whole_digits=5),
            st.lists(decimals(whole_digits=6), max_size=5),
        ),
        max_size=5,
    ),
)
def test_the_total_is_the_sum_of_what_its_parts_say(
    base_price_minor: int, parts: list[tuple[Decimal, Decimal, list[Decimal]]]
) -> None:
    components = [a_component(unit_price=str(price), included=str(inc)) for price, inc, _ in parts]
    tallies = {
        component.id: used(component, *quantities)
        for component, (_, _, quantities) in zip(components, parts, strict=True)
    }
    billed = bill(a_version(*components, base_price_minor=base_price_minor), tallies)
    assert billed.total_minor == base_price_minor + sum(t.rated_minor for t in tallies.values())
    assert billed.total_minor == sum(charge.amount_minor for charge in billed.charges)
    for calculation, component in zip(billed.calculations, components, strict=True):
        quantity = tallies[component.id].quantity
        assert calculation.total_quantity == quantity
        assert calculation.billable_quantity == billable_units(component, quantity)
        assert calculation.total_raw_usage_minor == charge_minor(component, quantity)
    if billed.invoice_request is None:
        assert not billed.charges
    else:
        lines = billed.invoice_request.line_items
        assert [line.amount_minor for line in lines] == [c.amount_minor for c in billed.charges]
