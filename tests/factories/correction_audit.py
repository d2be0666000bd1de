"""Compares calculations, corrections, recalculations and write-offs with their reference."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, NamedTuple

from billing.v1 import calculation_pb2, ledger_pb2, usage_pb2, write_off_pb2
from tests.factories.calculations import calculations_of, recalculations_of
from tests.factories.client import moment
from tests.factories.credit_audit import word
from tests.factories.reference_ledger import ReferenceSubscription
from tests.factories.served_subscription import ServedSubscription


class Facts(NamedTuple):
    """A calculation as both sides tell it."""

    kind: str
    status: str
    component: int
    quantity: Decimal
    raw: int
    credits: int


async def assert_same_calculations(
    served: ServedSubscription, reference: ReferenceSubscription
) -> None:
    """Compare every calculation there ever was; what is superseded names its successor."""
    listed = await calculations_of(served.client, served.id)
    by_id = {each.id: each for each in listed}
    for period in reference.periods:
        if period.start not in served.period_ids:
            assert period.calculations == []
            continue
        period_id = served.period_ids[period.start]
        mine = [each for each in listed if each.billing_period_id == period_id]
        told = sorted(_facts_of(served, each) for each in mine)
        expected = sorted(
            Facts(each.kind, each.status, *each.figures) for each in period.calculations
        )
        assert told == expected, f"{told}, not {expected}"
    for each in listed:
        assert each.net_billed_amount == each.total_raw_usage_amount - each.credits_applied_amount
        _assert_successor(each, by_id)


def _assert_successor(
    each: calculation_pb2.Calculation, by_id: dict[str, calculation_pb2.Calculation]
) -> None:
    is_superseded = each.status == calculation_pb2.CALCULATION_STATUS_SUPERSEDED
    assert bool(each.superseded_by_calculation_id) == is_superseded
    if is_superseded:
        successor = by_id[each.superseded_by_calculation_id]
        assert successor.id > each.id
        assert (successor.component_id, successor.billing_period_id) == (
            each.component_id,
            each.billing_period_id,
        )


def _facts_of(served: ServedSubscription, each: calculation_pb2.Calculation) -> Facts:
    return Facts(
        word(calculation_pb2.CalculationType, each.calculation_type, "CALCULATION_TYPE_"),
        word(calculation_pb2.CalculationStatus, each.status, "CALCULATION_STATUS_"),
        served.component_ids.index(each.component_id),
        Decimal(each.total_quantity.value),
        each.total_raw_usage_amount,
        each.credits_applied_amount,
    )


async def assert_same_corrections(
    served: ServedSubscription, reference: ReferenceSubscription
) -> None:
    """Compare usage events, the aggregates with what waits, recalculations and write-offs."""
    await _assert_events(served, reference)
    await _assert_usage_meters(served, reference)
    listed = await recalculations_of(served.client, served.id)
    await _assert_transactions(served, listed)
    told = [_changes_of(each) for each in listed]
    expected = [each.changes[:5] for period in reference.periods for each in period.recalculations]
    assert sorted(told) == sorted(expected), f"{told}, not {expected}"
    await _assert_write_offs(served, reference)


async def _assert_write_offs(served: ServedSubscription, reference: ReferenceSubscription) -> None:
    listed = await _pages(
        served.client.payments.ListWriteOffs,
        write_off_pb2.ListWriteOffsRequest(
            tenant_id=served.client.tenant_id, subscription_id=served.id, page_size=1000
        ),
        "write_offs",
    )
    assert [each.id for each in listed] == served.write_off_ids
    told = [(each.billing_period_id, each.amount, each.recovered_amount) for each in listed]
    expected = [
        (served.period_id(each.period), each.amount, each.recovered)
        for each in reference.write_offs
    ]
    assert told == expected, f"{told}, not {expected}"


async def _assert_transactions(
    served: ServedSubscription, listed: Iterable[calculation_pb2.Recalculation]
) -> None:
    """The entries of a recalculation move the receivable by its net, and what it says otherwise."""
    receivable = ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE
    entries = await served.client.entries(served.id)
    for made in listed:
        effect = raw = 0
        for entry in entries:
            if entry.ledger_transaction_id != made.ledger_transaction_id:
                continue
            assert entry.status == ledger_pb2.LEDGER_ENTRY_STATUS_POSTED
            effect += abs(entry.amount) * (entry.debit_account_kind == receivable)
            effect -= abs(entry.amount) * (entry.credit_account_kind == receivable)
            if entry.entry_type == ledger_pb2.LEDGER_ENTRY_TYPE_BILLING_ADJUSTMENT:
                raw -= entry.amount
        otherwise = made.recovered_amount + made.released_amount + made.surplus_amount
        assert effect == made.net_change_amount + otherwise
        assert raw == made.raw_change_amount
        assert made.net_change_amount == raw - made.credits_change_amount


def _changes_of(made: calculation_pb2.Recalculation) -> tuple[int, ...]:
    return (
        made.raw_change_amount,
        made.credits_change_amount,
        made.recovered_amount,
        made.released_amount,
        made.surplus_amount,
    )


async def _assert_events(served: ServedSubscription, reference: ReferenceSubscription) -> None:
    listed = await _pages(
        served.client.usage.ListUsageEvents,
        usage_pb2.ListUsageEventsRequest(
            tenant_id=served.client.tenant_id, subscription_id=served.id, page_size=1000
        ),
        "usage_events",
    )
    assert [each.id for each in listed] == served.event_ids
    told = [
        (each.billing_period_id, Decimal(each.corrected_quantity.value), each.voided)
        for each in listed
    ]
    expected = [
        (served.period_ids.get(reference.periods[each.period].start), each.quantity, each.is_voided)
        for each in reference.events
    ]
    for one, other in zip(told, expected, strict=True):
        assert one == other or other[0] is None, f"{one}, not {other}"


async def _assert_usage_meters(
    served: ServedSubscription, reference: ReferenceSubscription
) -> None:
    listed = await _pages(
        served.client.usage.ListSubscriptionUsageMeters,
        usage_pb2.ListSubscriptionUsageMetersRequest(
            tenant_id=served.client.tenant_id, subscription_id=served.id, page_size=1000
        ),
        "subscription_usage_meters",
    )
    periods = {period.start: period for period in reference.periods}
    for each in listed:
        period = periods[moment(each.period_start)]
        component = served.component_ids.index(each.component_id)
        pending = sum(cost.amount for cost, _ in period.pending if cost.component == component)
        figures = {figure[0]: figure for figure in reference.figures_of(period)}[component]
        assert (
            component,
            Decimal(each.total_quantity.value),
            each.total_raw_usage_amount,
            each.credits_applied_amount,
        ) == figures
        assert (Decimal(each.pending_quantity.value), each.pending_amount) == (
            period.pending_quantity(component),
            pending,
        )


async def _pages(method: Any, request: Any, name: str) -> list[Any]:
    found: list[Any] = []
    while True:
        answer = await method(request)
        found += getattr(answer, name)
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found
