"""The audit of recalculated billing periods: what must hold after whatever was done to them.

It knows the rules by itself, not from the service's code.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from billing.v1 import calculation_pb2, ledger_pb2, usage_credit_pb2
from invoicing.v1 import invoicing_pb2
from tests.factories.calculations import ACTIVE, calculations_of, recalculations_of
from tests.factories.client import moment
from tests.factories.credited_subscription import SETTLEMENT, CreditedSubscription
from tests.factories.credits import credits_of

_POSTED = ledger_pb2.LEDGER_ENTRY_STATUS_POSTED
_RECEIVABLE = ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE
_CREDIT = ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT
_OWN_KINDS = {_RECEIVABLE, _CREDIT, ledger_pb2.LEDGER_ACCOUNT_KIND_REFUND_CLEARING}

_COST = ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST
_CORRECTED = ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST_CORRECTED
_ADJUSTMENT = ledger_pb2.LEDGER_ENTRY_TYPE_BILLING_ADJUSTMENT
_APPLIED = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_APPLIED_TO_USAGE
_REVERSED = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_APPLICATION_REVERSED
_SURPLUS = ledger_pb2.LEDGER_ENTRY_TYPE_SURPLUS_CREDITED
_WRITTEN_OFF = ledger_pb2.LEDGER_ENTRY_TYPE_RECEIVABLE_WRITTEN_OFF
_DEFICIT = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_DEFICIT_CHARGED
_SWEPT = {
    ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_GRANT_EXPIRED,
    ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_BALANCE_ADJUSTED,
}

Entry = ledger_pb2.LedgerEntry


def owed_by(entries: Iterable[Entry]) -> int:
    """Return what entries add to receivables."""
    return sum(
        abs(e.amount)
        * ((e.debit_account_kind == _RECEIVABLE) - (e.credit_account_kind == _RECEIVABLE))
        for e in entries
    )


def total_of(entries: Iterable[Entry], *entry_types: int) -> int:
    """Return the sum of the entries of types."""
    return sum(e.amount for e in entries if e.entry_type in entry_types)


def invoices_of_period(
    held: CreditedSubscription, billing_period_id: str
) -> list[invoicing_pb2.Invoice]:
    """Return the invoices of a period: that of its billing, then the additional ones."""
    [billed] = [i for i in held.invoices() if i.idempotency_key == billing_period_id]
    additional = [
        i
        for i in held.invoices()
        if i.idempotency_key != billing_period_id and i.period_start == billed.period_start
    ]
    return [billed, *additional]


def credit_notes_of(held: CreditedSubscription) -> list[invoicing_pb2.CreditNote]:
    """Return the credit notes of a subscription, oldest first."""
    return [n for n in held.invoicing.credit_notes if n.subscription_id == held.id]


def invoiced_by(invoices: Iterable[invoicing_pb2.Invoice]) -> int:
    """Return what invoices ask for, less what was taken back."""
    return sum(i.total_amount - i.credited_amount for i in invoices if not i.HasField("voided_at"))


@dataclass(frozen=True)
class _Books:
    """All that a subscription has in the books."""

    posted: Sequence[Entry]
    settlement_ids: frozenset[str]
    applications: Sequence[usage_credit_pb2.CreditApplication]
    calculations: Sequence[calculation_pb2.Calculation]
    recalculations: Sequence[calculation_pb2.Recalculation]

    def of_period(self, billing_period_id: str) -> list[Entry]:
        return [e for e in self.posted if e.billing_period_id == billing_period_id]

    def live(self, billing_period_id: str, *, settlements: bool, component_id: str = "") -> int:
        return sum(
            each.amount_applied - each.reversed_amount
            for each in self.applications
            if each.billing_period_id == billing_period_id
            and (each.kind == SETTLEMENT) == settlements
            and component_id in ("", each.component_id)
        )


async def assert_recalculations_explain(
    held: CreditedSubscription, *, is_delivered: bool = True
) -> None:
    """Assert what must hold of recalculated periods, their calculations, documents and balances."""
    applications = await held.applications()
    books = _Books(
        [e for e in await held.entries() if e.status == _POSTED],
        frozenset(each.id for each in applications if each.kind == SETTLEMENT),
        applications,
        await calculations_of(held.client, held.id),
        await recalculations_of(held.client, held.id),
    )
    for recalculation in books.recalculations:
        _assert_recalculation(books, recalculation)
    _assert_calculations(books)
    for period_id in {r.billing_period_id for r in books.recalculations}:
        assert owed_by(books.of_period(period_id)) >= 0
        if is_delivered:
            _assert_invoiced(held, books, period_id)
    await _assert_balances(held, books)


def _assert_recalculation(books: _Books, told: calculation_pb2.Recalculation) -> None:
    """What a recalculation says of itself is what its one ledger transaction holds."""
    entries = [e for e in books.posted if e.ledger_transaction_id == told.ledger_transaction_id]
    assert {e.billing_period_id for e in entries if e.entry_type not in _SWEPT} <= {
        told.billing_period_id
    }
    adjustments = [e for e in entries if e.entry_type == _ADJUSTMENT]
    assert len({e.usage_meter_id for e in adjustments}) == len(adjustments)
    assert total_of(adjustments, _ADJUSTMENT) == -told.raw_change_amount
    reversals = [e for e in entries if e.entry_type == _REVERSED]
    settlements = [e for e in reversals if e.source_credit_application_id in books.settlement_ids]
    credits_ = [e for e in reversals if e not in settlements]
    credits_ += [e for e in entries if e.entry_type == _APPLIED]
    assert sum(e.amount for e in credits_) == told.credits_change_amount
    assert sum(e.amount for e in settlements) == -told.released_amount
    assert total_of(entries, _WRITTEN_OFF) == -told.recovered_amount
    assert total_of(entries, _SURPLUS) == told.surplus_amount
    assert told.net_change_amount == told.raw_change_amount - told.credits_change_amount
    assert owed_by(adjustments) + owed_by(credits_) == told.net_change_amount
    restored = told.recovered_amount + told.released_amount + told.surplus_amount
    assert owed_by(entries) == told.net_change_amount + restored
    assert sum(d.amount for d in told.documents) == told.net_change_amount


def _assert_calculations(books: _Books) -> None:
    active = [c for c in books.calculations if c.status == ACTIVE]
    assert len({(c.billing_period_id, c.component_id) for c in active}) == len(active)
    for each in active:
        usage = [
            e
            for e in books.of_period(each.billing_period_id)
            if e.usage_meter_id == each.usage_meter_id
        ]
        raw = -total_of(usage, _COST, _CORRECTED, _ADJUSTMENT)
        assert each.total_raw_usage_amount == raw
        assert each.credits_applied_amount == books.live(
            each.billing_period_id, settlements=False, component_id=each.component_id
        )
        assert each.net_billed_amount == raw - each.credits_applied_amount


def _assert_invoiced(held: CreditedSubscription, books: _Books, period_id: str) -> None:
    """A period owes its invoices, less what came in or was given up, plus what was taken away."""
    entries = books.of_period(period_id)
    invoices = invoices_of_period(held, period_id)
    lines = [line for invoice in invoices for line in invoice.line_items]
    named = Counter[str]()
    for line in lines:
        named[line.description] += line.amount
    for invoice in invoices:
        assert invoice.total_amount == sum(line.amount for line in invoice.line_items)
    late_deficits = -total_of(entries, _DEFICIT) - named["Credit taken back"]
    overpaid = total_of(entries, _SURPLUS) - named["Carried to credit"]
    assert owed_by(entries) == (
        invoiced_by(invoices)
        - books.live(period_id, settlements=True)
        - total_of(entries, _WRITTEN_OFF)
        + late_deficits
        + overpaid
    )
    documents = [
        d for r in books.recalculations if r.billing_period_id == period_id for d in r.documents
    ]
    keys = [d.id for d in documents if not d.invoice_id]
    assert sorted(i.idempotency_key for i in invoices[1:]) == sorted(keys)
    notes = {n.idempotency_key: n for n in credit_notes_of(held)}
    for document in documents:
        assert document.document_id
        assert document.HasField("delivered_at")
        assert not document.failure
        if document.kind == calculation_pb2.RECALCULATION_DOCUMENT_KIND_CREDIT_NOTE:
            note = notes[document.id]
            assert (note.id, note.invoice_id) == (document.document_id, document.invoice_id)
            assert note.total_amount == document.amount
            assert note.total_amount == sum(line.amount for line in note.line_items)


async def _assert_balances(held: CreditedSubscription, books: _Books) -> None:
    told = await held.client.balance(held.id)
    assert told == await held.client.balance(held.id, as_of=moment(told.as_of))
    assert told.outstanding_amount == owed_by(books.posted)
    value = Counter[str]()
    for entry in books.posted:
        if entry.debit_account_kind == _CREDIT:
            value[entry.source_usage_credit_id] -= abs(entry.amount)
        if entry.credit_account_kind == _CREDIT:
            value[entry.source_usage_credit_id] += abs(entry.amount)
    for each in await credits_of(held.client, held.id):
        assert each.remaining_amount + each.held_amount == value[each.id]
        if each.HasField("voided_at") or each.HasField("expired_at"):
            assert value[each.id] == 0
    assert told.credit_balance_amount == sum(value.values())
    assert told.net_amount == told.credit_balance_amount - told.outstanding_amount
    assert told.net_amount == sum(
        e.amount
        for e in books.posted
        if (e.debit_account_kind in _OWN_KINDS) != (e.credit_account_kind in _OWN_KINDS)
    )
    assert (await held.client.trial_balance()).difference_amount == 0
