"""The ledger in short: what moved between which accounts, and whether anything did."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from billing.v1 import ledger_pb2
from tests.factories.client import BillingClient
from tests.factories.credit_changes import adjustments_of
from tests.factories.credits import applications, credits_of
from tests.factories.payments import payments_of, refunds_of


class Move(NamedTuple):
    """One entry in words: the kinds of account are those of debit and credit."""

    entry_type: str
    amount: int
    debit: str
    credit: str
    state: str = "posted"


def kind_name(kind: ledger_pb2.LedgerAccountKind.ValueType) -> str:
    """Return a kind of account as a word."""
    return _word(ledger_pb2.LedgerAccountKind.Name(kind), "LEDGER_ACCOUNT_KIND_")


def type_name(entry_type: ledger_pb2.LedgerEntryType.ValueType) -> str:
    """Return a type of entry as a word."""
    return _word(ledger_pb2.LedgerEntryType.Name(entry_type), "LEDGER_ENTRY_TYPE_")


def moves(entries: Iterable[ledger_pb2.LedgerEntry]) -> list[Move]:
    """Return entries in short, in the order they were made."""
    return [
        Move(
            type_name(entry.entry_type),
            entry.amount,
            kind_name(entry.debit_account_kind),
            kind_name(entry.credit_account_kind),
            _state_of(entry),
        )
        for entry in entries
    ]


def sources_of(entry: ledger_pb2.LedgerEntry) -> dict[str, str]:
    """Return the ids of what caused an entry, by kind: ``usage_credit``, ``payment`` and others."""
    return {
        field.name.removeprefix("source_").removesuffix("_id"): value
        for field, value in entry.ListFields()
        if field.name.startswith("source_")
    }


async def ledger_transaction(
    client: BillingClient, ledger_transaction_id: str
) -> ledger_pb2.LedgerTransaction:
    """Return a ledger transaction with its entries."""
    answer: ledger_pb2.GetLedgerTransactionResponse = await client.ledger.GetLedgerTransaction(
        ledger_pb2.GetLedgerTransactionRequest(
            tenant_id=client.tenant_id, ledger_transaction_id=ledger_transaction_id
        )
    )
    return answer.ledger_transaction


async def account_balances(client: BillingClient) -> dict[str, int]:
    """Return debits less credits of the tenant's kinds of account; fails unless they add up.

    Refund clearing is zero after every transaction: so it is left out, and must be.
    """
    answer = await client.trial_balance()
    assert answer.difference_amount == 0
    balances = {
        kind_name(line.account_kind): line.debit_amount - line.credit_amount
        for line in answer.lines
    }
    assert balances.pop("refund_clearing", 0) == 0
    return balances


@asynccontextmanager
async def nothing_written(client: BillingClient, *subscription_ids: str) -> AsyncIterator[None]:
    """Fail unless the books of subscriptions are the same after the block as before it."""
    before = [await _books(client, each) for each in subscription_ids]
    yield
    assert [await _books(client, each) for each in subscription_ids] == before


async def _books(client: BillingClient, subscription_id: str) -> Mapping[str, Any]:
    """All that can be asked about a subscription's money."""
    balance = await client.balance(subscription_id)
    balance.ClearField("as_of")
    usage_credits = await credits_of(client, subscription_id)
    return {
        "entries": await client.entries(subscription_id),
        "credits": usage_credits,
        "applications": await applications(client, subscription_id),
        "adjustments": [await adjustments_of(client, each.id) for each in usage_credits],
        "payments": await payments_of(client, subscription_id),
        "refunds": await refunds_of(client, subscription_id),
        "balance": balance,
        "trial balance": await client.trial_balance(),
    }


def _state_of(entry: ledger_pb2.LedgerEntry) -> str:
    if entry.HasField("discarded_at"):
        assert entry.status == ledger_pb2.LEDGER_ENTRY_STATUS_PENDING
        assert not entry.HasField("posted_at")
        return "discarded"
    is_posted = entry.status == ledger_pb2.LEDGER_ENTRY_STATUS_POSTED
    assert entry.HasField("posted_at") == is_posted
    return "posted" if is_posted else "pending"


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
