"""Recalculations: an invoiced billing period is put right without rewriting history."""

from datetime import timedelta

from billing.v1 import calculation_pb2 as pb
from billing.v1 import ledger_pb2, usage_pb2
from tests.factories.calculations import (
    ACTIVE,
    SUPERSEDED,
    amend,
    calculations_of,
    recalculate,
    usage_event_of,
    void_event,
)
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
)

ADJUSTMENT = ledger_pb2.LEDGER_ENTRY_TYPE_BILLING_ADJUSTMENT
HELD = usage_pb2.USAGE_EVENT_DISPOSITION_HELD
POSTED = ledger_pb2.LEDGER_ENTRY_STATUS_POSTED
HOUR = timedelta(hours=1)


async def test_a_held_event_is_taken_in(held: CreditedSubscription) -> None:
    await held.use(100, february(3))
    billed = await held.bill()
    period_id = billed.billing_period_id
    late = await held.use(40, february(20))
    event = await usage_event_of(held.client, late.usage_event_id)
    assert (event.disposition, event.billing_period_id) == (HELD, period_id)
    before = await held.client.balance(held.id)
    assert before.outstanding_amount == 100

    answer = await recalculate(held.client, held.id, period_id)

    assert answer.changed
    assert answer.recalculation.raw_change_amount == 40
    assert answer.recalculation.net_change_amount == 40
    [document] = answer.recalculation.documents
    assert (document.kind, document.amount) == (pb.RECALCULATION_DOCUMENT_KIND_INVOICE, 40)
    assert document.document_id
    assert (await held.client.balance(held.id)).outstanding_amount == 140
    [adjusted] = [e for e in await held.entries(ADJUSTMENT) if e.status == POSTED]
    assert adjusted.amount == -40
    statuses = [c.status for c in await calculations_of(held.client, held.id)]
    assert sorted(statuses) == [ACTIVE, ACTIVE, SUPERSEDED, SUPERSEDED]
    again = await recalculate(held.client, held.id, period_id)
    assert not again.changed
    taken = await usage_event_of(held.client, late.usage_event_id)
    assert taken.HasField("taken_in_at")


async def test_a_voided_event_is_taken_out_with_what_paid_it(held: CreditedSubscription) -> None:
    promotion = await held.grant(60)
    first = await held.use(100, february(3))
    await held.use(30, february(4), held.tokens)
    billed = await held.bill()
    assert billed.total_amount == 70
    correction = await void_event(held.client, first.usage_event_id)
    assert correction.cost_change_amount == -100

    answer = await recalculate(held.client, held.id, billed.billing_period_id)

    # 60 of calls are freed: 30 of them pay the tokens, 30 go back.
    assert answer.recalculation.raw_change_amount == -100
    assert answer.recalculation.credits_change_amount == -30
    assert answer.recalculation.net_change_amount == -70
    [document] = answer.recalculation.documents
    assert document.kind == pb.RECALCULATION_DOCUMENT_KIND_CREDIT_NOTE
    assert document.amount == -70
    assert (await held.now(promotion)).remaining_amount == 30
    assert (await held.client.balance(held.id)).outstanding_amount == 0


async def test_an_open_period_is_corrected_at_once(held: CreditedSubscription) -> None:
    event = await held.use(100, february(3))
    correction = await amend(held.client, event.usage_event_id, "25")
    assert (correction.cost_change_amount, correction.status) == (-75, POSTED)
    assert (await held.client.balance(held.id)).unbilled_amount == 25
    assert await held.bill_lines() == [("calls (25)", 25), ("tokens (0)", 0)]
