"""The audit after a scenario: ledger, balances and invoices tell the same story, to the cent."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import ledger_pb2
from invoicing.v1 import invoicing_pb2
from tests.factories.client import BillingClient, moment

_REVENUE = {
    ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST: ledger_pb2.LEDGER_ACCOUNT_KIND_USAGE_REVENUE,
    ledger_pb2.LEDGER_ENTRY_TYPE_CHARGE_BILLED: ledger_pb2.LEDGER_ACCOUNT_KIND_SUBSCRIPTION_REVENUE,
}


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


async def assert_ledger_explains(
    client: BillingClient, invoicing: ReferenceInvoicingServer, *subscription_ids: str
) -> None:
    """Assert that ledger, balances and invoices of subscriptions agree, and the books balance.

    The posted entries add up to the balance, told from snapshots or from entries; no period has
    two invoices; and an invoice's total is what the ledger holds for its period.
    """
    for subscription_id in subscription_ids:
        entries = await client.entries(subscription_id)
        _assert_entries_are_well_formed(entries)
        await _assert_balance(client, subscription_id, -sum(entry.amount for entry in entries))
        _assert_invoices(entries, invoices_of(invoicing, client, subscription_id))
    assert (await client.trial_balance()).difference_amount == 0


def _assert_entries_are_well_formed(entries: Sequence[ledger_pb2.LedgerEntry]) -> None:
    for entry in entries:
        assert entry.status == ledger_pb2.LEDGER_ENTRY_STATUS_POSTED
        assert entry.amount <= 0
        assert entry.debit_account_kind == ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE
        assert entry.credit_account_kind == _REVENUE[entry.entry_type]
        assert entry.billing_period_id
    events = Counter(e.source_usage_event_id for e in entries if e.source_usage_event_id)
    charges = Counter(e.source_charge_id for e in entries if e.source_charge_id)
    assert all(count == 1 for count in (events | charges).values())


async def _assert_balance(client: BillingClient, subscription_id: str, outstanding: int) -> None:
    by_snapshot = await client.balance(subscription_id)
    assert by_snapshot.outstanding_amount == outstanding
    assert by_snapshot.net_amount == -outstanding
    by_entries = await client.balance(subscription_id, as_of=moment(by_snapshot.as_of))
    assert by_entries == by_snapshot
    assert outstanding == (
        by_snapshot.unbilled_amount
        + by_snapshot.billed_not_invoiced_amount
        + by_snapshot.invoiced_amount
    )


def _assert_invoices(
    entries: Sequence[ledger_pb2.LedgerEntry], invoices: Sequence[invoicing_pb2.Invoice]
) -> None:
    posted: dict[str, int] = defaultdict(int)
    for entry in entries:
        posted[entry.billing_period_id] += entry.amount
    keys = [invoice.idempotency_key for invoice in invoices]
    starts = [moment(invoice.period_start) for invoice in invoices]
    assert len(set(keys)) == len(set(starts)) == len(invoices)
    for invoice in invoices:
        assert invoice.total_amount == -posted[invoice.idempotency_key]
        assert invoice.total_amount == sum(line.amount for line in invoice.line_items)
