"""The ledger's views of one subscription, and that they agree with each other and the balance."""

from collections.abc import Sequence
from typing import Any

from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_statement_pb2 as statement_pb
from tests.factories.client import BillingClient

OWN_KINDS = {
    pb.LEDGER_ACCOUNT_KIND_RECEIVABLE,
    pb.LEDGER_ACCOUNT_KIND_CREDIT,
    pb.LEDGER_ACCOUNT_KIND_REFUND_CLEARING,
}
"""The kinds of account that tell what a subscription owes and has."""


async def account_balances(
    client: BillingClient, subscription_id: str, **fields: Any
) -> pb.GetAccountBalancesResponse:
    """Return what is in each account of a subscription."""
    request = statement_pb.GetAccountBalancesRequest(
        tenant_id=client.tenant_id, subscription_id=subscription_id, **fields
    )
    answer: pb.GetAccountBalancesResponse = await client.ledger.GetAccountBalances(request)
    return answer


async def statement_pages(
    client: BillingClient, subscription_id: str, **fields: Any
) -> list[pb.GetStatementResponse]:
    """Return all pages of a statement."""
    request = statement_pb.GetStatementRequest(
        tenant_id=client.tenant_id, subscription_id=subscription_id, **fields
    )
    pages: list[pb.GetStatementResponse] = []
    while True:
        pages.append(await client.ledger.GetStatement(request))
        request.page_token = pages[-1].next_page_token
        if not request.page_token:
            return pages


def assert_adds_up(pages: Sequence[pb.GetStatementResponse]) -> None:
    """Every page has the same ends, and the running balance leads from one to the other."""
    first = pages[0]
    running = first.opening_balance.net_amount
    for page in pages:
        assert page.opening_balance == first.opening_balance
        assert page.closing_balance == first.closing_balance
        assert page.posted_until == first.posted_until
        for movement in page.movements:
            entry = movement.ledger_entry
            assert entry.status == pb.LEDGER_ENTRY_STATUS_POSTED
            kinds = [entry.debit_account_kind, entry.credit_account_kind]
            assert sum(kind in OWN_KINDS for kind in kinds) == 1
            assert entry.amount != 0
            running += entry.amount
            assert movement.running_net_amount == running
    assert running == first.closing_balance.net_amount
    for end in (first.opening_balance, first.closing_balance):
        parts = end.credit_balance_amount - end.outstanding_amount - end.refund_clearing_amount
        assert end.net_amount == parts
    entries = [movement.ledger_entry for page in pages for movement in page.movements]
    keys = [(e.posted_at.ToMicroseconds(), e.ledger_transaction_id, e.id) for e in entries]
    assert keys == sorted(set(keys))


def assert_end(end: statement_pb.StatementBalance, balance: pb.Balance) -> None:
    """The end of a statement is the balance of its moment."""
    assert end.refund_clearing_amount == 0
    assert (end.net_amount, end.outstanding_amount, end.credit_balance_amount) == (
        balance.net_amount,
        balance.outstanding_amount,
        balance.credit_balance_amount,
    )


def totals_of(
    told: pb.Balance | pb.GetAccountBalancesResponse,
) -> tuple[int, int, int, int, str]:
    """Return what a balance and the sum of all accounts both tell."""
    return (
        told.outstanding_amount,
        told.credit_balance_amount,
        told.available_credit_amount,
        told.net_amount,
        told.currency,
    )


async def assert_views_agree(client: BillingClient, subscription_id: str) -> None:
    """Accounts and statement of a subscription lead to its balance."""
    balance = await client.balance(subscription_id)
    assert totals_of(await account_balances(client, subscription_id)) == totals_of(balance)
    pages = await statement_pages(client, subscription_id, page_size=1000)
    assert_adds_up(pages)
    assert pages[0].opening_balance == statement_pb.StatementBalance()
    assert_end(pages[0].closing_balance, balance)
