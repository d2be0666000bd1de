"""What a recalculation writes: entries, calculations, charges, totals, and who sees it when."""

from datetime import timedelta

import pytest

from billing.domain.identifiers import BILLING_PERIOD, CALCULATION_RUN, from_typeid
from billing.v1 import calculation_pb2 as pb
from billing.v1 import ledger_pb2, usage_pb2
from tests.factories.billing_runs import FEBRUARY
from tests.factories.calculations import (
    ACTIVE,
    SUPERSEDED,
    amend,
    calculations_of,
    corrections_of,
    get_calculation,
    get_recalculation,
    recalculate,
    recalculations_of,
    usage_event_of,
    void_event,
)
from tests.factories.client import moment
from tests.factories.credited_subscription import RUN, CreditedSubscription, february
from tests.factories.ledger_book import connected
from tests.factories.ledger_moves import ledger_transaction
from tests.factories.recalculation_audit import assert_recalculations_explain
from tests.factories.tenant_rows import rows_of

CREDIT_NOTE = pb.RECALCULATION_DOCUMENT_KIND_CREDIT_NOTE
INVOICE = pb.RECALCULATION_DOCUMENT_KIND_INVOICE
RUN_TYPE = pb.CALCULATION_TYPE_BILLING_RUN
RECALCULATION_TYPE = pb.CALCULATION_TYPE_ADJUSTMENT_RECALCULATION

CHARGES = """
SELECT charge_type, description, quantity::float, unit_price::float, amount, position
FROM charges WHERE tenant_id = $1 AND recalculation_id = $2 ORDER BY position
"""
TOTAL = "SELECT total_amount FROM billing_periods WHERE tenant_id = $1 AND id = $2"


def amounts(told: pb.Recalculation) -> tuple[int, int, int]:
    """What usage costs more, what credits pay more, what is owed more."""
    return told.raw_change_amount, told.credits_change_amount, told.net_change_amount


async def meter_views(held: CreditedSubscription) -> list[usage_pb2.SubscriptionUsageMeter]:
    """The aggregates of February."""
    answer = await held.client.usage.ListSubscriptionUsageMeters(
        usage_pb2.ListSubscriptionUsageMetersRequest(
            tenant_id=held.client.tenant_id, subscription_id=held.id, page_size=1000
        )
    )
    return [
        each for each in answer.subscription_usage_meters if moment(each.period_start) == FEBRUARY
    ]


async def total_of(url: str, held: CreditedSubscription, period_id: str) -> int:
    """What is invoiced of a period, as its row says."""
    async with connected(url) as connection:
        return int(
            await connection.fetchval(
                TOTAL, held.client.tenant_id, from_typeid(BILLING_PERIOD, period_id)
            )
        )


async def test_usage_that_was_missing(held: CreditedSubscription, database_url: str) -> None:
    await held.use(100, february(3))
    billed = await held.bill()
    await held.use(40, february(20))
    await held.use(7, february(21), held.tokens)
    before = await held.client.balance(held.id)
    waiting = {each.usage_meter_id: each for each in await meter_views(held)}
    assert [waiting[m].pending_amount for m in held.meter_ids] == [40, 7]

    answer = await recalculate(
        held.client, held.id, billed.billing_period_id, reason="a file came late"
    )

    told = answer.recalculation
    assert amounts(told) == (47, 0, 47)
    assert (told.recovered_amount, told.released_amount, told.surplus_amount) == (0, 0, 0)
    assert told.reason == "a file came late"
    assert [(d.kind, d.amount, d.currency) for d in told.documents] == [(INVOICE, 47, "USD")]
    assert await get_recalculation(held.client, told.id) == told
    assert await recalculations_of(held.client, held.id) == [told]
    assert await total_of(database_url, held, billed.billing_period_id) == 147
    now = await held.client.balance(held.id)
    assert now.outstanding_amount == now.invoiced_amount == 147
    earlier = await held.client.balance(
        held.id, as_of=moment(told.created_at) - timedelta.resolution
    )
    assert earlier.outstanding_amount == before.outstanding_amount == 100
    views = {each.usage_meter_id: each for each in await meter_views(held)}
    calls, tokens = (views[meter_id] for meter_id in held.meter_ids)
    assert (calls.total_quantity.value, calls.event_count) == ("140", 2)
    assert (calls.total_raw_usage_amount, calls.net_billed_amount) == (140, 140)
    assert (tokens.total_quantity.value, tokens.event_count) == ("7", 1)
    assert [(v.pending_quantity.value, v.pending_amount) for v in (calls, tokens)] == [("0", 0)] * 2
    await assert_recalculations_explain(held)


async def test_the_one_ledger_transaction_holds_all_of_it(held: CreditedSubscription) -> None:
    promotion = await held.grant(60)
    event = await held.use(100, february(3))
    await held.use(30, february(4), held.tokens)
    billed = await held.bill()
    await void_event(held.client, event.usage_event_id)

    answer = await recalculate(held.client, held.id, billed.billing_period_id, reason="a test")

    told = answer.recalculation
    transaction = await ledger_transaction(held.client, told.ledger_transaction_id)
    assert transaction.initiating_source_type == "recalculation"
    assert transaction.initiating_source_id == told.id
    assert transaction.description == "Recalculation: a test"
    calls = next(c for c in answer.calculations if c.component_id == held.component_ids[0])
    entries = {e.entry_type: e for e in transaction.entries}
    assert len(entries) == len(transaction.entries) == 3
    adjusted = entries[ledger_pb2.LEDGER_ENTRY_TYPE_BILLING_ADJUSTMENT]
    assert (adjusted.amount, adjusted.billing_period_id) == (100, billed.billing_period_id)
    assert adjusted.source_billing_period_calculation_id == calls.id
    assert (adjusted.usage_meter_id, adjusted.calculation_run_id) == (held.calls, told.id)
    old = (await get_calculation(held.client, calls.id)).superseded_calculations[0]
    assert old.id in adjusted.description
    reversed_ = entries[ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_APPLICATION_REVERSED]
    applied = entries[ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_APPLIED_TO_USAGE]
    assert (reversed_.amount, reversed_.source_usage_credit_id) == (-60, promotion.id)
    assert (applied.amount, applied.source_usage_credit_id) == (30, promotion.id)
    assert applied.calculation_run_id == told.id
    [new] = [a for a in await held.applications() if a.calculation_run_id == told.id]
    assert (new.kind, new.component_id) == (RUN, held.component_ids[1])
    await assert_recalculations_explain(held)


async def test_usage_that_was_too_much(held: CreditedSubscription, database_url: str) -> None:
    event = await held.use(100, february(3))
    billed = await held.bill()
    await amend(held.client, event.usage_event_id, "75.5")

    answer = await recalculate(held.client, held.id, billed.billing_period_id)

    assert amounts(answer.recalculation) == (-24, 0, -24)
    [document] = answer.recalculation.documents
    assert (document.kind, document.amount) == (CREDIT_NOTE, -24)
    assert document.invoice_id == billed.invoice_id
    [correction] = await corrections_of(held.client, event.usage_event_id)
    assert correction.HasField("taken_in_at")
    stored = await usage_event_of(held.client, event.usage_event_id)
    assert (stored.corrected_quantity.value, stored.corrected_cost_amount) == ("75.5", 76)
    assert await total_of(database_url, held, billed.billing_period_id) == 76
    assert (await held.client.balance(held.id)).invoiced_amount == 76
    await assert_recalculations_explain(held)


async def test_a_period_of_which_nothing_is_left(
    held: CreditedSubscription, database_url: str
) -> None:
    events = [await held.use(units, february(units)) for units in (3, 5)]
    billed = await held.bill()
    for event in events:
        await void_event(held.client, event.usage_event_id)

    answer = await recalculate(held.client, held.id, billed.billing_period_id)

    assert amounts(answer.recalculation) == (-8, 0, -8)
    assert [c.total_raw_usage_amount for c in answer.calculations] == [0, 0]
    assert await total_of(database_url, held, billed.billing_period_id) == 0
    assert (await held.client.balance(held.id)).outstanding_amount == 0
    calls, *_ = await meter_views(held)
    assert (calls.total_quantity.value, calls.total_raw_usage_amount) == ("0", 0)
    await assert_recalculations_explain(held)


@pytest.mark.parametrize("is_corrected", [False, True])
async def test_a_repeat_writes_nothing(
    held: CreditedSubscription, database_url: str, is_corrected: bool
) -> None:
    await held.grant(60, expires_at=february(10))
    event = await held.use(100, february(3))
    await held.use(30, february(20), held.tokens)
    billed = await held.bill()
    if is_corrected:
        await amend(held.client, event.usage_event_id, "20")
        await held.use(5, february(25))
        assert (await recalculate(held.client, held.id, billed.billing_period_id)).changed
    before = await rows_of(database_url, held.client)

    answer = await recalculate(held.client, held.id, billed.billing_period_id)

    assert not answer.changed
    assert not answer.HasField("recalculation")
    assert [c.status for c in answer.calculations] == [ACTIVE, ACTIVE]
    assert await rows_of(database_url, held.client) == before


async def test_calculations_name_what_replaced_them(held: CreditedSubscription) -> None:
    await held.use(100, february(3))
    billed = await held.bill()
    event = await held.use(40, february(20))
    first = await recalculate(held.client, held.id, billed.billing_period_id, reason="late")
    await amend(held.client, event.usage_event_id, "30")
    second = await recalculate(held.client, held.id, billed.billing_period_id, reason="too many")

    [calls] = [c for c in second.calculations if c.component_id == held.component_ids[0]]
    found = await get_calculation(held.client, calls.id)
    assert found.calculation == calls
    chain = [calls, *found.superseded_calculations]
    assert [c.total_raw_usage_amount for c in chain] == [130, 140, 100]
    assert [c.status for c in chain] == [ACTIVE, SUPERSEDED, SUPERSEDED]
    assert [c.calculation_type for c in chain] == [RECALCULATION_TYPE, RECALCULATION_TYPE, RUN_TYPE]
    assert [c.superseded_by_calculation_id for c in chain] == ["", chain[0].id, chain[1].id]
    assert [c.notes for c in chain] == ["too many", "late", ""]
    runs = [second.recalculation.id, first.recalculation.id]
    assert [c.calculation_run_id for c in chain[:2]] == runs
    assert [c.billing_run_id for c in chain] == ["", "", billed.run_id]
    # The invoice of 40 was not paid, and 10 of it are taken back.
    invoices = [d.document_id for r in (second, first) for d in r.recalculation.documents]
    assert [c.source_invoice_id for c in chain] == ["", invoices[1], billed.invoice_id]
    assert [c.source_credit_note_id for c in chain] == [invoices[0], "", ""]
    of_calls = await calculations_of(held.client, held.id, component_id=held.component_ids[0])
    assert of_calls == list(reversed(chain))
    of_first = (await get_calculation(held.client, chain[1].id)).superseded_calculations
    assert list(of_first) == chain[2:]
    await assert_recalculations_explain(held)


async def test_charges_tell_what_changed(held: CreditedSubscription, database_url: str) -> None:
    await held.grant(60)
    event = await held.use(100, february(3))
    billed = await held.bill()
    await void_event(held.client, event.usage_event_id)
    await held.use(7, february(4), held.tokens)

    answer = await recalculate(held.client, held.id, billed.billing_period_id)

    assert amounts(answer.recalculation) == (-93, -53, -40)
    async with connected(database_url) as connection:
        charges = await connection.fetch(
            CHARGES,
            held.client.tenant_id,
            from_typeid(CALCULATION_RUN, answer.recalculation.id),
        )
    assert [tuple(charge) for charge in charges] == [
        ("usage", "Correction: calls (0)", -100, 1, -100, 0),
        ("usage", "Correction: tokens (7)", 7, 1, 7, 1),
        ("credit", "Credits released", 1, 53, 53, 2),
    ]
    await assert_recalculations_explain(held)


async def test_what_cancels_out_is_taken_in_and_costs_nothing(
    held: CreditedSubscription, database_url: str
) -> None:
    event = await held.use(100, february(3))
    billed = await held.bill()
    await amend(held.client, event.usage_event_id, "60")
    late = await held.use(40, february(20))

    answer = await recalculate(held.client, held.id, billed.billing_period_id)

    assert answer.changed
    assert amounts(answer.recalculation) == (0, 0, 0)
    assert list(answer.recalculation.documents) == []
    assert await total_of(database_url, held, billed.billing_period_id) == 100
    taken = await usage_event_of(held.client, late.usage_event_id)
    assert taken.HasField("taken_in_at")
    assert not (await recalculate(held.client, held.id, billed.billing_period_id)).changed
    await assert_recalculations_explain(held)


async def test_a_held_event_that_was_voided_again(held: CreditedSubscription) -> None:
    await held.use(100, february(3))
    billed = await held.bill()
    late = await held.use(40, february(20))
    await void_event(held.client, late.usage_event_id)

    answer = await recalculate(held.client, held.id, billed.billing_period_id)

    assert amounts(answer.recalculation) == (0, 0, 0)
    assert (await held.client.balance(held.id)).outstanding_amount == 100
    await assert_recalculations_explain(held)


async def test_up_and_down_and_up_again(held: CreditedSubscription) -> None:
    event = await held.use(100, february(3))
    billed = await held.bill()
    for number, quantity in enumerate(("130", "90", "0", "95")):
        await amend(held.client, event.usage_event_id, quantity)
        answer = await recalculate(held.client, held.id, billed.billing_period_id)
        assert answer.changed
        assert (await held.client.balance(held.id)).outstanding_amount == int(quantity)
        assert len(await recalculations_of(held.client, held.id)) == number + 1
        await assert_recalculations_explain(held)


async def test_each_period_by_itself(held: CreditedSubscription) -> None:
    """A period long ago, while later ones are invoiced and open."""
    await held.use(100, february(3))
    first = await held.bill("run-1")
    await held.use(10, february(35))
    second = await held.bill("run-2")
    await held.use(20, february(65))
    await held.use(40, february(20))
    await held.use(5, february(40))

    answer = await recalculate(held.client, held.id, first.billing_period_id)

    assert amounts(answer.recalculation) == (40, 0, 40)
    balance = await held.client.balance(held.id)
    assert (balance.invoiced_amount, balance.unbilled_amount) == (150, 20)
    answer = await recalculate(held.client, held.id, second.billing_period_id)
    assert amounts(answer.recalculation) == (5, 0, 5)
    of_first = await recalculations_of(
        held.client, held.id, billing_period_id=first.billing_period_id
    )
    assert [r.raw_change_amount for r in of_first] == [40]
    assert [r.raw_change_amount for r in await recalculations_of(held.client, held.id)] == [40, 5]
    await assert_recalculations_explain(held)
