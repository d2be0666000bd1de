"""The audit after a scenario: ledger, credits, balances and invoices agree, to the cent.

It knows the rules of the books by itself, not from the service's code.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import calculation_pb2, ledger_pb2, usage_credit_pb2
from invoicing.v1 import invoicing_pb2
from tests.factories.calculations import calculations_of
from tests.factories.client import BillingClient, moment
from tests.factories.credits import applications, credits_of
from tests.factories.entry_rules import ENTRY_RULES
from tests.factories.ledger_views import assert_views_agree

_OWN_KINDS: Final = {"receivable", "credit", "refund_clearing"}
_ONE_FOR_EVER: Final = {
    "usage_cost": "source_usage_event_id",
    "billing_adjustment": "source_billing_period_calculation_id",
    "charge_billed": "source_charge_id",
    "payment_recognized": "source_payment_id",
    "payment_refunded": "source_refund_id",
    "refund_absorbed": "source_refund_id",
}
"""What there is at most one entry of a type of."""

_ORIGINS: Final = {"payment_recognized", "credit_grant_recognized", "surplus_credited"}
_APPLIED: Final = {"credit_applied_to_usage", "credit_applied_to_charge"}
_USAGE: Final = ("usage_cost", "usage_cost_corrected", "billing_adjustment")
_CREDIT_LINES: Final = {"Credits applied", "Carried to credit"}


def _word(enum: Any, value: int, prefix: str) -> str:
    return str(enum.Name(value)).removeprefix(prefix).lower()


@dataclass(frozen=True)
class _Entry:
    """An entry with its enum values in words."""

    row: ledger_pb2.LedgerEntry

    @property
    def entry_type(self) -> str:
        return _word(ledger_pb2.LedgerEntryType, self.row.entry_type, "LEDGER_ENTRY_TYPE_")

    @property
    def debit(self) -> str:
        return _kind(self.row.debit_account_kind)

    @property
    def credit(self) -> str:
        return _kind(self.row.credit_account_kind)

    @property
    def is_posted(self) -> bool:
        return self.row.status == ledger_pb2.LEDGER_ENTRY_STATUS_POSTED

    @property
    def is_pending(self) -> bool:
        return not self.is_posted and not self.row.HasField("discarded_at")

    def adds_to(self, kind: str) -> int:
        """Return debit less credit of the entry on a kind of account."""
        return abs(self.row.amount) * ((self.debit == kind) - (self.credit == kind))


def _kind(kind: ledger_pb2.LedgerAccountKind.ValueType) -> str:
    return _word(ledger_pb2.LedgerAccountKind, kind, "LEDGER_ACCOUNT_KIND_")


@dataclass(frozen=True)
class _Books:
    """All that one subscription has in the books."""

    entries: Sequence[_Entry]
    credits: Sequence[usage_credit_pb2.UsageCredit]
    applications: Sequence[usage_credit_pb2.CreditApplication]
    calculations: Sequence[calculation_pb2.Calculation]

    @property
    def posted(self) -> list[_Entry]:
        return [entry for entry in self.entries if entry.is_posted]

    def total_of(self, period_id: str, *entry_types: str) -> int:
        """Return the sum of the posted entries of types in a period."""
        return sum(
            entry.row.amount
            for entry in self.posted
            if entry.row.billing_period_id == period_id and entry.entry_type in entry_types
        )

    def applied(self, period_id: str, *, settlements: bool, component_id: str | None = None) -> int:
        """Return what applications still pay of a period: settlements, or all others.

        Of one component, or of all there is.
        """
        kind = usage_credit_pb2.CREDIT_APPLICATION_KIND_SETTLEMENT
        return sum(
            each.amount_applied - each.reversed_amount
            for each in self.applications
            if each.billing_period_id == period_id
            and (each.kind == kind) == settlements
            and component_id in (None, each.component_id)
        )

    def owed(self, period_id: str) -> int:
        """Return what a period owes."""
        return sum(
            entry.adds_to("receivable")
            for entry in self.posted
            if entry.row.billing_period_id == period_id
        )


def invoices_of(
    invoicing: ReferenceInvoicingServer, client: BillingClient, subscription_id: str | None = None
) -> list[invoicing_pb2.Invoice]:
    """Return the invoices of the caller's tenant and mode, of one subscription or of all.

    By the start of their periods, and of one period by their ids.
    """
    invoices = [
        invoice
        for invoice in invoicing.invoices
        if (invoice.tenant_id, invoice.livemode) == (client.tenant_id, client.livemode)
        and subscription_id in (None, invoice.subscription_id)
    ]
    return sorted(invoices, key=lambda invoice: (moment(invoice.period_start), invoice.id))


def is_additional(invoice: invoicing_pb2.Invoice) -> bool:
    """Whether a recalculation asked for an invoice: the others have the keys of their periods."""
    return not invoice.idempotency_key.startswith("period_")


async def assert_ledger_explains(
    client: BillingClient, invoicing: ReferenceInvoicingServer, *subscription_ids: str
) -> None:
    """Assert that ledger, credits, balances and invoices of subscriptions agree.

    The posted entries add up to the balance, told from snapshots or from entries, and credit by
    credit to what is left of it; a period has one invoice, and those of its recalculations, which
    are in all what the ledger holds for it, and so are its calculations; and the books balance.
    """
    for subscription_id in subscription_ids:
        books = _Books(
            [_Entry(row) for row in await client.entries(subscription_id)],
            await credits_of(client, subscription_id),
            await applications(client, subscription_id),
            await calculations_of(client, subscription_id),
        )
        _assert_entries_are_well_formed(books.entries)
        _assert_credits(books)
        _assert_applications(books)
        _assert_calculations(books)
        await _assert_balance(client, subscription_id, books)
        await assert_views_agree(client, subscription_id)
        _assert_invoices(books, invoices_of(invoicing, client, subscription_id))
    trial_balance = await client.trial_balance()
    assert trial_balance.difference_amount == 0
    for line in trial_balance.lines:
        if _kind(line.account_kind) == "refund_clearing":
            assert line.debit_amount == line.credit_amount


def _assert_entries_are_well_formed(entries: Iterable[_Entry]) -> None:
    keys: Counter[tuple[str, ...]] = Counter()
    clearing: Counter[str] = Counter()
    for entry in entries:
        row = entry.row
        sign = (row.amount > 0) - (row.amount < 0)
        assert (entry.entry_type, sign, entry.debit, entry.credit) in ENTRY_RULES
        assert row.HasField("posted_at") == entry.is_posted
        assert not (entry.is_posted and row.HasField("discarded_at"))
        if "receivable" in (entry.debit, entry.credit):
            assert row.billing_period_id
        for kind, account_id in (
            (entry.debit, row.debit_account_id),
            (entry.credit, row.credit_account_id),
        ):
            if kind == "credit":
                assert _suffix(account_id) == _suffix(row.source_usage_credit_id)
        keys.update(_natural_keys(entry))
        if entry.is_posted:
            clearing[row.ledger_transaction_id] += entry.adds_to("refund_clearing")
    assert [key for key, count in keys.items() if count > 1] == []
    assert not any(clearing.values()), "refund clearing is zero after every transaction"


def _natural_keys(entry: _Entry) -> Iterable[tuple[str, ...]]:
    row = entry.row
    if entry.entry_type in _ONE_FOR_EVER:
        yield entry.entry_type, getattr(row, _ONE_FOR_EVER[entry.entry_type])
    if entry.entry_type in _ORIGINS:
        yield "origin", row.source_usage_credit_id
    if entry.entry_type in _APPLIED:
        yield "applied", row.source_credit_application_id
    if entry.entry_type == "receivable_written_off" and row.amount > 0:
        yield "written off", row.source_write_off_id
    if entry.entry_type == "usage_cost_corrected":
        yield "corrected", row.source_usage_event_id, row.ledger_transaction_id
    if entry.entry_type == "credit_grant_expired":
        yield "expired", row.source_usage_credit_id, row.ledger_transaction_id


def _suffix(typeid: str) -> str:
    return typeid.partition("_")[2]


def _assert_credits(books: _Books) -> None:
    """Each credit has one origin, and is worth what its account holds."""
    value: Counter[str] = Counter()
    held: Counter[str] = Counter()
    origins: Counter[str] = Counter()
    for entry in books.entries:
        credit_id = entry.row.source_usage_credit_id
        if entry.is_posted:
            value[credit_id] -= entry.adds_to("credit")
            origins[credit_id] += entry.entry_type in _ORIGINS
        elif entry.is_pending:
            held[credit_id] += max(0, entry.adds_to("credit"))
    assert set(value) - {""} == {credit.id for credit in books.credits}
    for credit in books.credits:
        assert origins[credit.id] == 1
        assert credit.remaining_amount >= 0
        assert credit.held_amount == held[credit.id]
        assert credit.remaining_amount + credit.held_amount == value[credit.id]
        if credit.HasField("voided_at") or credit.HasField("expired_at"):
            assert (credit.remaining_amount, credit.held_amount) == (0, 0)


def _assert_applications(books: _Books) -> None:
    """Each application has its entry, and counts what was reversed of it. Estimates have none."""
    entries = {
        entry.row.source_credit_application_id: entry
        for entry in books.entries
        if entry.entry_type in _APPLIED and entry.is_posted
    }
    reversed_amounts: Counter[str] = Counter()
    for entry in books.posted:
        if entry.entry_type == "credit_application_reversed":
            reversed_amounts[entry.row.source_credit_application_id] -= entry.row.amount
    assert set(entries) == {each.id for each in books.applications}
    assert set(reversed_amounts) <= set(entries)
    for each in books.applications:
        row = entries[each.id].row
        assert row.amount == each.amount_applied
        assert row.source_usage_credit_id == each.usage_credit_id
        assert row.billing_period_id == each.billing_period_id
        assert row.usage_meter_id == each.usage_meter_id
        assert row.ledger_transaction_id == each.ledger_transaction_id
        assert (entries[each.id].entry_type == "credit_applied_to_usage") == bool(each.component_id)
        assert each.reversed_amount == reversed_amounts[each.id] <= each.amount_applied


def _assert_calculations(books: _Books) -> None:
    """Those that count say what the ledger holds for their component and period."""
    active = [
        c for c in books.calculations if c.status == calculation_pb2.CALCULATION_STATUS_ACTIVE
    ]
    keys = [(each.billing_period_id, each.component_id) for each in active]
    assert len(keys) == len(set(keys)), "one calculation counts"
    for each in active:
        raw = sum(
            -entry.row.amount
            for entry in books.posted
            if entry.entry_type in _USAGE
            and entry.row.billing_period_id == each.billing_period_id
            and entry.row.usage_meter_id == each.usage_meter_id
        )
        assert each.total_raw_usage_amount == raw
        assert each.credits_applied_amount == books.applied(
            each.billing_period_id, settlements=False, component_id=each.component_id
        )
    raw_by_id = {each.id: each.total_raw_usage_amount for each in books.calculations}
    replaced = {c.superseded_by_calculation_id: raw_by_id[c.id] for c in books.calculations}
    for entry in books.entries:
        if entry.entry_type == "billing_adjustment":
            new_id = entry.row.source_billing_period_calculation_id
            assert entry.row.amount == replaced.get(new_id, 0) - raw_by_id[new_id]


async def _assert_balance(client: BillingClient, subscription_id: str, books: _Books) -> None:
    by_snapshot = await client.balance(subscription_id)
    by_entries = await client.balance(subscription_id, as_of=moment(by_snapshot.as_of))
    assert by_entries == by_snapshot
    outstanding = sum(entry.adds_to("receivable") for entry in books.posted)
    assert by_snapshot.outstanding_amount == outstanding
    assert outstanding == (
        by_snapshot.unbilled_amount
        + by_snapshot.billed_not_invoiced_amount
        + by_snapshot.invoiced_amount
    )
    value = sum(credit.remaining_amount + credit.held_amount for credit in books.credits)
    assert by_snapshot.credit_balance_amount == value
    assert by_snapshot.net_amount == value - outstanding
    assert by_snapshot.net_amount == sum(
        entry.row.amount
        for entry in books.posted
        if (entry.debit in _OWN_KINDS) != (entry.credit in _OWN_KINDS)
    )
    _assert_available(by_snapshot, books.credits)


def _assert_available(
    balance: ledger_pb2.Balance, credits_: Iterable[usage_credit_pb2.UsageCredit]
) -> None:
    """All that can be spent at the moment; of one period's credits only while that is open."""
    spendable: Mapping[bool, list[int]] = {True: [], False: []}
    for credit in credits_:
        is_over = credit.HasField("expires_at") and moment(credit.expires_at) <= moment(
            balance.as_of
        )
        if not is_over:
            spendable[credit.billing_period_id == ""].append(credit.remaining_amount)
    least = sum(spendable[True])
    assert least <= balance.available_credit_amount <= least + sum(spendable[False])


def _assert_invoices(books: _Books, invoices: Sequence[invoicing_pb2.Invoice]) -> None:
    keys = [invoice.idempotency_key for invoice in invoices]
    first = [invoice for invoice in invoices if not is_additional(invoice)]
    starts = [moment(invoice.period_start) for invoice in first]
    assert len(set(keys)) == len(invoices)
    assert len(set(starts)) == len(first)
    for start, invoice in zip(starts, first, strict=True):
        further = [i for i in invoices if is_additional(i) and moment(i.period_start) == start]
        _assert_period_invoices(books, invoice, further)


def _assert_period_invoices(
    books: _Books, first: invoicing_pb2.Invoice, further: Sequence[invoicing_pb2.Invoice]
) -> None:
    """The lines are what the ledger holds, and what is still owed is what nobody paid since."""
    period_id = first.idempotency_key
    lines: Counter[str] = Counter()
    for line in first.line_items:
        lines[line.description] += line.amount
    asked_for = 0
    for invoice in [first, *further]:
        assert invoice.total_amount == sum(line.amount for line in invoice.line_items)
        if not invoice.HasField("voided_at"):
            asked_for += invoice.total_amount - invoice.credited_amount
    deficits = -books.total_of(period_id, "credit_deficit_charged")
    late_deficits = deficits - lines["Credit taken back"]
    assert late_deficits >= 0
    billed = -books.total_of(period_id, "charge_billed", *_USAGE)
    credited = books.applied(period_id, settlements=False)
    total = billed + lines["Credit taken back"] - credited
    assert asked_for == max(0, total)
    # What is more than a period owes becomes a credit; of a negative total, the invoice says so.
    surplus = books.total_of(period_id, "surplus_credited")
    carried = max(0, -total)
    assert carried <= surplus
    owed = books.owed(period_id)
    assert owed >= 0
    settled = books.applied(period_id, settlements=True)
    given_up = books.total_of(period_id, "receivable_written_off")
    assert owed == asked_for - settled - given_up + late_deficits + surplus - carried
    # Where a recalculation moved usage against credits, nothing may be invoiced.
    kinds = {c.calculation_type for c in books.calculations if c.billing_period_id == period_id}
    if calculation_pb2.CALCULATION_TYPE_ADJUSTMENT_RECALCULATION not in kinds:
        raw = sum(amount for name, amount in lines.items() if name not in _CREDIT_LINES)
        assert raw - lines["Credit taken back"] == billed
        assert lines["Credits applied"] == -credited
        assert 0 <= lines["Carried to credit"] <= surplus
