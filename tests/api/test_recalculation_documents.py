"""What the invoicing service is asked for after a recalculation, as it has it."""

from collections.abc import Iterable

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import calculation_pb2 as pb
from invoicing.v1 import invoicing_pb2
from tests.factories.calculations import (
    amend,
    calculations_of,
    recalculate,
    void_event,
    write_off,
)
from tests.factories.client import BillingClient, moment
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    lines_of,
    subscribe_credited,
)
from tests.factories.credits import create_payment
from tests.factories.recalculation_audit import (
    assert_recalculations_explain,
    credit_notes_of,
    invoiced_by,
    invoices_of_period,
)

INVOICE = pb.RECALCULATION_DOCUMENT_KIND_INVOICE
CREDIT_NOTE = pb.RECALCULATION_DOCUMENT_KIND_CREDIT_NOTE
VOID = pb.RECALCULATION_DOCUMENT_KIND_VOID


def told(documents: Iterable[pb.RecalculationDocument]) -> list[tuple[int, int, str]]:
    """Kind, amount, and the invoice that it takes back from."""
    return [(d.kind, d.amount, d.invoice_id) for d in documents]


class Invoiced:
    """A subscription whose February was invoiced: 100 for one event."""

    def __init__(self, held: CreditedSubscription, period_id: str, event_id: str) -> None:
        self.held = held
        self.period_id = period_id
        self.event_id = event_id

    async def now(self, units: int, **fields: str) -> pb.Recalculation:
        """Let the event be of so many units, recalculate, and audit."""
        await amend(self.held.client, self.event_id, str(units))
        answer = await recalculate(self.held.client, self.held.id, self.period_id, **fields)
        await assert_recalculations_explain(self.held)
        return answer.recalculation

    def invoices(self) -> list[invoicing_pb2.Invoice]:
        """The invoices of February, that of its billing first."""
        return invoices_of_period(self.held, self.period_id)

    async def pay(self, amount: int) -> None:
        """Pay February."""
        await create_payment(
            self.held.client, self.held.id, amount, billing_period_id=self.period_id
        )


@pytest.fixture
async def invoiced(held: CreditedSubscription) -> Invoiced:
    """The subscription, on the first of March."""
    event = await held.use(100, february(3))
    billed = await held.bill()
    return Invoiced(held, billed.billing_period_id, event.usage_event_id)


async def test_an_additional_invoice_says_what_is_new(invoiced: Invoiced) -> None:
    held = invoiced.held
    await held.grant(15)
    await held.use(1007, february(9), held.tokens)
    recalculation = await invoiced.now(140)
    first, additional = invoiced.invoices()
    assert lines_of(additional) == [
        ("Correction: calls (140)", 40),
        ("Correction: tokens (1,007)", 1007),
        ("Credits applied", -15),
    ]
    calls, tokens, credits_ = additional.line_items
    assert [(line.quantity.value, line.unit_price.value) for line in (calls, tokens, credits_)] == [
        ("40", "1"),
        ("1007", "1"),
        ("1", "-15"),
    ]
    assert additional.total_amount == 1032
    [document] = recalculation.documents
    assert additional.idempotency_key == document.id
    assert additional.id == document.document_id
    assert moment(document.delivered_at) >= moment(recalculation.created_at)
    for name in ("tenant_id", "livemode", "customer_id", "currency", "subscription_id"):
        assert getattr(additional, name) == getattr(first, name), name
    assert additional.period_start == first.period_start
    assert additional.period_end == first.period_end
    made_on = moment(recalculation.created_at)
    issued, due = additional.issue_date, additional.due_date
    assert (issued.year, issued.month, issued.day) == (made_on.year, made_on.month, made_on.day)
    assert (due.year, due.month, due.day) == (2026, 3, 31)


async def test_a_credit_note_says_what_is_gone(invoiced: Invoiced) -> None:
    held = invoiced.held
    await held.use(5, february(9), held.tokens)
    recalculation = await invoiced.now(40, reason="sixty were tests")
    [document] = recalculation.documents
    [invoice] = invoiced.invoices()
    assert told([document]) == [(CREDIT_NOTE, -55, invoice.id)]
    [note] = credit_notes_of(held)
    assert [(line.description, line.quantity.value, line.amount) for line in note.line_items] == [
        ("Correction: calls (40)", "-60", -60),
        ("Correction: tokens (5)", "5", 5),
    ]
    assert (note.id, note.idempotency_key) == (document.document_id, document.id)
    assert (note.invoice_id, note.total_amount) == (invoice.id, -55)
    assert (note.reason, note.customer_id, note.currency) == ("sixty were tests", "cus-1", "USD")
    assert (note.subscription_id, note.livemode) == (held.id, True)
    assert (note.period_start, note.period_end) == (invoice.period_start, invoice.period_end)
    assert invoice.credited_amount == 55
    sources = [
        (c.source_invoice_id, c.source_credit_note_id)
        for c in await calculations_of(held.client, held.id)
        if c.calculation_run_id == recalculation.id
    ]
    assert sources == [("", note.id)] * 2


async def test_no_document_where_nothing_is_invoiced_anew(invoiced: Invoiced) -> None:
    held = invoiced.held
    await held.grant(40)
    recalculation = await invoiced.now(140)
    assert (recalculation.raw_change_amount, recalculation.credits_change_amount) == (40, 40)
    assert told(recalculation.documents) == []
    assert len(invoiced.invoices()) == 1
    assert credit_notes_of(held) == []


async def test_credit_notes_over_several_invoices_newest_first(invoiced: Invoiced) -> None:
    """Nobody can see any more which invoice was paid, so none of them is voided."""
    await invoiced.now(130)
    await invoiced.now(150)
    first, second, third = invoiced.invoices()
    assert [each.total_amount for each in (first, second, third)] == [100, 30, 20]
    await invoiced.pay(145)

    recalculation = await invoiced.now(35)

    assert told(recalculation.documents) == [
        (CREDIT_NOTE, -20, third.id),
        (CREDIT_NOTE, -30, second.id),
        (CREDIT_NOTE, -65, first.id),
    ]
    notes = credit_notes_of(invoiced.held)
    assert [lines_of_note(note) for note in notes] == [
        [("Correction of 2026-02-01 to 2026-03-01, in part", amount)] for amount in (-20, -30, -65)
    ]
    assert [each.credited_amount for each in invoiced.invoices()] == [65, 30, 20]
    assert invoiced_by(invoiced.invoices()) == 35
    recalculation = await invoiced.now(0)
    assert told(recalculation.documents) == [(CREDIT_NOTE, -35, first.id)]
    assert invoiced_by(invoiced.invoices()) == 0
    recalculation = await invoiced.now(7)
    assert told(recalculation.documents) == [(INVOICE, 7, "")]


def lines_of_note(note: invoicing_pb2.CreditNote) -> list[tuple[str, int]]:
    """Description and amount of each line."""
    return [(line.description, line.amount) for line in note.line_items]


async def test_an_unpaid_additional_invoice_is_voided(invoiced: Invoiced) -> None:
    await invoiced.now(130)
    first, additional = invoiced.invoices()

    recalculation = await invoiced.now(100)

    [document] = recalculation.documents
    assert told([document]) == [(VOID, -30, additional.id)]
    assert document.document_id == additional.id
    first, additional = invoiced.invoices()
    assert additional.HasField("voided_at")
    assert not first.HasField("voided_at")
    assert credit_notes_of(invoiced.held) == []
    sources = [
        (c.source_invoice_id, c.source_credit_note_id)
        for c in await calculations_of(invoiced.held.client, invoiced.held.id)
        if c.calculation_run_id == recalculation.id
    ]
    assert sources == [("", "")] * 2
    # What is void has nothing left: the next one goes on to the first invoice.
    assert told((await invoiced.now(90)).documents) == [(CREDIT_NOTE, -10, first.id)]
    assert told((await invoiced.now(95)).documents) == [(INVOICE, 5, "")]


async def test_a_void_and_a_credit_note_together(invoiced: Invoiced) -> None:
    await invoiced.now(130)
    first, additional = invoiced.invoices()
    recalculation = await invoiced.now(80)
    assert told(recalculation.documents) == [
        (VOID, -30, additional.id),
        (CREDIT_NOTE, -20, first.id),
    ]
    [note] = credit_notes_of(invoiced.held)
    [active] = [
        c
        for c in await calculations_of(invoiced.held.client, invoiced.held.id)
        if c.calculation_run_id == recalculation.id and c.total_raw_usage_amount == 80
    ]
    assert active.source_credit_note_id == note.id


@pytest.mark.parametrize(("paid", "kind"), [(100, VOID), (101, CREDIT_NOTE), (130, CREDIT_NOTE)])
async def test_an_additional_invoice_that_may_have_been_paid_has_a_credit_note(
    invoiced: Invoiced, paid: int, kind: int
) -> None:
    await invoiced.now(130)
    await invoiced.pay(paid)
    recalculation = await invoiced.now(100)
    assert told(recalculation.documents) == [(kind, -30, invoiced.invoices()[1].id)]


async def test_an_additional_invoice_that_was_written_off_has_a_credit_note(
    invoiced: Invoiced,
) -> None:
    await invoiced.now(130)
    await write_off(invoiced.held.client, invoiced.held.id, invoiced.period_id, amount=110)
    recalculation = await invoiced.now(100)
    assert recalculation.recovered_amount == 10
    assert told(recalculation.documents) == [(CREDIT_NOTE, -30, invoiced.invoices()[1].id)]


async def test_an_additional_invoice_with_a_credit_note_has_another_one(
    invoiced: Invoiced,
) -> None:
    await invoiced.now(130)
    await invoiced.now(120)
    additional = invoiced.invoices()[1]
    recalculation = await invoiced.now(100)
    assert told(recalculation.documents) == [(CREDIT_NOTE, -20, additional.id)]
    assert invoiced.invoices()[1].credited_amount == 30


async def test_an_invoice_of_nothing_has_nothing_to_take_back(
    held: CreditedSubscription,
) -> None:
    event = await held.use(50, february(3))
    await held.grant(50)
    billed = await held.bill()
    assert billed.total_amount == 0
    await void_event(held.client, event.usage_event_id)
    answer = await recalculate(held.client, held.id, billed.billing_period_id)
    assert answer.recalculation.net_change_amount == 0
    assert told(answer.recalculation.documents) == []
    await held.use(60, february(20))
    answer = await recalculate(held.client, held.id, billed.billing_period_id)
    assert told(answer.recalculation.documents) == [(INVOICE, 10, "")]
    assert lines_of(invoices_of_period(held, billed.billing_period_id)[1]) == [
        ("Correction: calls (60)", 60),
        ("Credits applied", -50),
    ]
    await assert_recalculations_explain(held)


async def test_test_data_has_test_documents(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    held = await subscribe_credited(client.in_test_mode(), clock, invoicing, holds_late_usage=True)
    event = await held.use(10, february(3))
    billed = await held.bill()
    for units in ("12", "11"):
        await amend(held.client, event.usage_event_id, units)
        await recalculate(held.client, held.id, billed.billing_period_id)
    assert [invoice.livemode for invoice in invoices_of_period(held, billed.billing_period_id)] == [
        False,
        False,
    ]
    assert [note.livemode for note in credit_notes_of(held)] == [False]
    await assert_recalculations_explain(held)
