"""Compares a subscription at the service with its reference, to the cent."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import (
    ledger_pb2,
    payment_pb2,
    refund_pb2,
    usage_credit_pb2,
)
from invoicing.v1 import invoicing_pb2
from tests.factories.client import moment
from tests.factories.credits import (
    applications,
    credit_summary,
    credits_of,
)
from tests.factories.ledger_audit import invoices_of
from tests.factories.payments import payments_of, refunds_of
from tests.factories.reference_credits import Credit
from tests.factories.reference_ledger import ReferenceSubscription
from tests.factories.reference_subscription import Balance
from tests.factories.served_subscription import ServedSubscription

POSTED = ledger_pb2.LEDGER_ENTRY_STATUS_POSTED
OWN_KINDS = frozenset(
    {
        ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE,
        ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT,
        ledger_pb2.LEDGER_ACCOUNT_KIND_REFUND_CLEARING,
    }
)


def word(enum: Any, value: int, prefix: str) -> str:
    """Return a value of an enum as the reference writes it."""
    return str(enum.Name(value)).removeprefix(prefix).lower()


def _told(balance: ledger_pb2.Balance) -> Balance:
    return Balance(
        balance.unbilled_amount,
        balance.billed_not_invoiced_amount,
        balance.invoiced_amount,
        balance.credit_balance_amount,
        balance.available_credit_amount,
        balance.net_amount,
    )


def assert_balance(reference: ReferenceSubscription, balance: ledger_pb2.Balance) -> None:
    """Compare a balance with the reference's at the same moment."""
    told = _told(balance)
    expected = reference.balance(moment(balance.as_of))
    assert told == expected, f"{told}, not {expected}"
    assert balance.outstanding_amount == told.outstanding
    assert balance.net_amount == told.credit_balance - told.outstanding


async def assert_same(
    served: ServedSubscription,
    reference: ReferenceSubscription,
    balance: ledger_pb2.Balance,
    invoicing: ReferenceInvoicingServer,
) -> None:
    """Compare credits, balance, ledger and invoices with the reference's, and each other."""
    await _assert_credits(served, reference)
    assert_balance(reference, balance)
    posted = [e for e in await served.client.entries(served.id) if e.status == POSTED]
    own_legs = [
        (e.debit_account_kind in OWN_KINDS) + (e.credit_account_kind in OWN_KINDS) for e in posted
    ]
    moved = sum(e.amount for e, legs in zip(posted, own_legs, strict=True) if legs == 1)
    assert moved == balance.net_amount, "the balance is not what moved"
    told, expected = _amounts_by_type(posted), reference.books.amounts_by_type(served.clock.now)
    assert told == expected, f"{told}, not {expected}"
    _assert_invoices(served, reference, posted, balance, invoicing)


async def _assert_credits(served: ServedSubscription, reference: ReferenceSubscription) -> None:
    listed = await credits_of(served.client, served.id)
    assert [each.id for each in listed] == served.credit_ids
    assert all(each.remaining_amount >= 0 and each.held_amount >= 0 for each in listed)
    told, expected = [_facts_of(each) for each in listed], [_facts(c) for c in reference.credits]
    assert told == expected, f"{told}, not {expected}"


def _assert_invoices(
    served: ServedSubscription,
    reference: ReferenceSubscription,
    posted: Sequence[ledger_pb2.LedgerEntry],
    balance: ledger_pb2.Balance,
    invoicing: ReferenceInvoicingServer,
) -> None:
    invoices = invoices_of(invoicing, served.client, served.id)
    told = [_invoice_told(each) for each in invoices]
    expected = _expected_invoices(reference)
    assert told == expected, f"{told}, not {expected}"
    period_ids = set()
    unpaid = 0
    for invoice in invoices:
        lines = _amounts_by_line(invoice)
        assert invoice.total_amount == sum(lines.values())
        period_ids.add(served.period_ids[moment(invoice.period_start)])
        if not invoice.HasField("voided_at"):
            unpaid += invoice.total_amount - invoice.credited_amount
        unpaid -= lines["deficit"] + lines["carried"]
    unpaid += sum(_owed_otherwise(posted, period_id) for period_id in period_ids)
    unpaid -= sum(
        each.live
        for each in reference.applications
        if each.kind == "settlement" and reference.periods[each.period].invoiced_at is not None
    )
    assert balance.invoiced_amount == unpaid, "the receivable is not what invoices ask for"


InvoiceTold: TypeAlias = tuple[dict[str, int], int, bool]
"""The amounts of an invoice's lines, what credit notes took back of it, and whether it is void."""


def _invoice_told(invoice: invoicing_pb2.Invoice) -> InvoiceTold:
    lines = _without_zeros(_amounts_by_line(invoice))
    return lines, invoice.credited_amount, invoice.HasField("voided_at")


def _expected_invoices(reference: ReferenceSubscription) -> list[InvoiceTold]:
    """Those that were made: additional ones are made at once, or before anybody looks."""
    return [
        (_without_zeros(invoice.lines), invoice.credited, invoice.is_void)
        for period in reference.periods
        if period.invoiced_at is not None
        for invoice in period.invoices
    ]


class Figures(NamedTuple):
    """What came of a history, without its times."""

    credits: list[tuple[str, int, int]]
    balance: tuple[int, ...]
    amounts_by_type: dict[str, int]
    invoices: list[InvoiceTold]
    payments: list[tuple[str, int, int]]
    refunds: list[tuple[str | int, ...]]


async def final_figures(served: ServedSubscription, invoicing: ReferenceInvoicingServer) -> Figures:
    """Read what came of a history."""
    balance = await served.balance()
    posted = [e for e in await served.client.entries(served.id) if e.status == POSTED]
    listed = [_facts_of(each) for each in await credits_of(served.client, served.id)]
    return Figures(
        credits=[(status, remaining, held) for status, _, remaining, held, *_ in listed],
        balance=_told(balance),
        amounts_by_type=_amounts_by_type(posted),
        invoices=[
            _invoice_told(invoice) for invoice in invoices_of(invoicing, served.client, served.id)
        ],
        payments=await _payments(served),
        refunds=await _refunds(served),
    )


def expected_figures(reference: ReferenceSubscription, at: datetime) -> Figures:
    """What the reference says came of it, in the same form."""
    return Figures(
        credits=[(each.status, each.remaining, each.held) for each in reference.credits],
        balance=reference.balance(at),
        amounts_by_type=reference.books.amounts_by_type(at),
        invoices=_expected_invoices(reference),
        payments=_expected_payments(reference),
        refunds=_expected_refunds(reference),
    )


def _expected_payments(reference: ReferenceSubscription) -> list[tuple[str, int, int]]:
    return [
        (payment.status, reference.settled(payment), reference.refunded(payment))
        for payment in reference.payments
    ]


def _expected_refunds(reference: ReferenceSubscription) -> list[tuple[str | int, ...]]:
    return [
        (r.status, *(() if r.status == "failed" else (r.clawed_back, r.reversed, r.deficit)))
        for r in reference.refunds
    ]


async def assert_same_records(served: ServedSubscription, reference: ReferenceSubscription) -> None:
    """Compare payments, refunds, applications and the summary with the reference's."""
    assert await _payments(served) == _expected_payments(reference)
    assert await _refunds(served) == _expected_refunds(reference)
    applied: Counter[tuple[str, str, str]] = Counter()
    for each in await applications(served.client, served.id):
        kind = word(usage_credit_pb2.CreditApplicationKind, each.kind, "CREDIT_APPLICATION_KIND_")
        live = each.amount_applied - each.reversed_amount
        applied[each.usage_credit_id, kind, each.component_id] += live
    expected: Counter[tuple[str, str, str]] = Counter()
    for application in reference.applications:
        number = application.component
        component_id = "" if number is None else served.component_ids[number]
        credit_id = served.credit_ids[application.credit]
        expected[credit_id, application.kind, component_id] += application.live
    assert applied == expected, f"{applied}, not {expected}"
    await _assert_summary(served, reference)


async def _payments(served: ServedSubscription) -> list[tuple[str, int, int]]:
    payments = await payments_of(served.client, served.id)
    assert [payment.id for payment in payments] == served.payment_ids
    return [
        (
            word(payment_pb2.PaymentStatus, payment.status, "PAYMENT_STATUS_"),
            payment.settled_amount,
            payment.refunded_amount,
        )
        for payment in payments
    ]


async def _refunds(served: ServedSubscription) -> list[tuple[str | int, ...]]:
    refunds = await refunds_of(served.client, served.id)
    assert [refund.id for refund in refunds] == served.refund_ids
    rows: list[tuple[str | int, ...]] = []
    for refund in refunds:
        status = word(refund_pb2.RefundStatus, refund.status, "REFUND_STATUS_")
        parts = (refund.clawed_back_amount, refund.reversed_amount, refund.deficit_amount)
        if status != "failed":
            assert refund.absorbed_amount == refund.amount - sum(parts)
        rows.append((status, *(() if status == "failed" else parts)))
    return rows


async def _assert_summary(served: ServedSubscription, reference: ReferenceSubscription) -> None:
    summary = await credit_summary(served.client, served.id)
    at = moment(summary.as_of)
    available = [(each, reference.available(each, at)) for each in reference.credits]
    assert summary.available_amount == sum(amount for _, amount in available)
    assert summary.upcoming_amount == sum(
        amount for each, amount in available if each.effective_at > at
    )
    assert summary.held_amount == sum(each.held for each in reference.credits)
    assert summary.credit_balance_amount == reference.balance(at).credit_balance
    assert summary.available_count == sum(amount > 0 for _, amount in available)


def _facts_of(listed: usage_credit_pb2.UsageCredit) -> tuple[Any, ...]:
    return (
        word(usage_credit_pb2.UsageCreditStatus, listed.status, "USAGE_CREDIT_STATUS_"),
        listed.issued_amount,
        listed.remaining_amount,
        listed.held_amount,
        moment(listed.effective_at),
        moment(listed.expires_at) if listed.HasField("expires_at") else None,
    )


def _facts(each: Credit) -> tuple[Any, ...]:
    return (
        each.status,
        each.issued,
        each.remaining,
        each.held,
        each.effective_at,
        each.expires_at,
    )


def _amounts_by_type(entries: Iterable[ledger_pb2.LedgerEntry]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for entry in entries:
        sums[word(ledger_pb2.LedgerEntryType, entry.entry_type, "LEDGER_ENTRY_TYPE_")] += (
            entry.amount
        )
    return {entry_type: amount for entry_type, amount in sums.items() if amount}


def _amounts_by_line(invoice: invoicing_pb2.Invoice) -> Counter[str]:
    amounts: Counter[str] = Counter()
    for line in invoice.line_items:
        amounts[_line_name(line.description)] += line.amount
    return amounts


def _line_name(description: str) -> str:
    """The name that the reference gives an invoice's line."""
    names = {
        "Credits applied": "credits",
        "Credits released": "credits",
        "Credit taken back": "deficit",
        "Carried to credit": "carried",
    }
    usage = description.removeprefix("Correction: ")
    if usage.startswith("usage "):
        return usage[: len("usage 0")]
    return names.get(description, "recurring")


def _owed_otherwise(entries: Iterable[ledger_pb2.LedgerEntry], period_id: str) -> int:
    """What else a period owes than what its invoices ask for and payments pay, by the ledger.

    Deficits may come later than the invoice, what was paid too much became a credit, and what was
    written off is not owed.
    """
    signs = {
        ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_DEFICIT_CHARGED: -1,
        ledger_pb2.LEDGER_ENTRY_TYPE_SURPLUS_CREDITED: 1,
        ledger_pb2.LEDGER_ENTRY_TYPE_RECEIVABLE_WRITTEN_OFF: -1,
    }
    return sum(
        signs.get(entry.entry_type, 0) * entry.amount
        for entry in entries
        if entry.billing_period_id == period_id
    )


def _without_zeros(amounts: dict[str, int]) -> dict[str, int]:
    return {name: amount for name, amount in amounts.items() if amount}
