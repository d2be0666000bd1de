"""Account balances, transactions with their totals, statements."""

from billing.api.converters.ledger import (
    account_kind,
    encode_initiating_source,
    encode_ledger_entry,
)
from billing.api.converters.values import encode_optional_id, encode_time
from billing.domain import identifiers
from billing.domain.ledger import LedgerAccountKind
from billing.domain.ledger_statements import (
    AccountBalance,
    AccountBalances,
    LedgerTransactionSummary,
    Statement,
    StatementBalance,
    StatementMovement,
)
from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_statement_pb2 as statement_pb


def encode_account_balances(balances: AccountBalances) -> pb.GetAccountBalancesResponse:
    """Return the answer that tells what is in each account."""
    return pb.GetAccountBalancesResponse(
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, balances.subscription_id),
        currency=balances.currency,
        as_of=encode_time(balances.as_of),
        account_balances=[_encode_account_balance(account) for account in balances.accounts],
        outstanding_amount=balances.outstanding_minor,
        credit_balance_amount=balances.credit_balance_minor,
        available_credit_amount=balances.available_credit_minor,
        net_amount=balances.net_minor,
    )


def _encode_account_balance(account: AccountBalance) -> pb.AccountBalance:
    is_credit = account.kind is LedgerAccountKind.CREDIT
    return pb.AccountBalance(
        account_id=identifiers.to_typeid(identifiers.LEDGER_ACCOUNT, account.account_id),
        account_kind=account_kind.encode(account.kind),
        usage_credit_id=encode_optional_id(
            identifiers.USAGE_CREDIT, account.account_id if is_credit else None
        ),
        posted_amount=account.posted_minor,
        pending_amount=account.pending_minor,
        available_amount=account.available_minor,
        opened_at=encode_time(account.opened_at),
    )


def encode_transaction_summary(
    summary: LedgerTransactionSummary, currency: str
) -> statement_pb.LedgerTransactionSummary:
    """Return the message of a transaction with its totals."""
    return statement_pb.LedgerTransactionSummary(
        id=identifiers.to_typeid(identifiers.LEDGER_TRANSACTION, summary.id),
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, summary.subscription_id),
        initiating_source_type=summary.initiating_source_type.value,
        initiating_source_id=encode_initiating_source(
            summary.initiating_source_type, summary.initiating_source_id
        ),
        description=summary.description,
        created_at=encode_time(summary.created_at),
        currency=currency,
        posted_entry_count=summary.posted_entry_count,
        pending_entry_count=summary.pending_entry_count,
        net_amount=summary.net_minor,
        outstanding_change_amount=summary.outstanding_change_minor,
        credit_balance_change_amount=summary.credit_balance_change_minor,
    )


def encode_statement(statement: Statement, *, next_page_token: str) -> pb.GetStatementResponse:
    """Return the answer with a page of a statement."""
    return pb.GetStatementResponse(
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, statement.subscription_id),
        currency=statement.currency,
        billing_period_id=encode_optional_id(
            identifiers.BILLING_PERIOD, statement.billing_period_id
        ),
        posted_from=encode_time(statement.span.start),
        posted_until=encode_time(statement.span.end),
        opening_balance=_encode_end(statement.part.opening),
        closing_balance=_encode_end(statement.part.closing),
        movements=[_encode_movement(movement) for movement in statement.part.movements.items],
        next_page_token=next_page_token,
    )


def _encode_end(balance: StatementBalance) -> statement_pb.StatementBalance:
    return statement_pb.StatementBalance(
        net_amount=balance.net_minor,
        outstanding_amount=balance.outstanding_minor,
        credit_balance_amount=balance.credit_balance_minor,
        refund_clearing_amount=balance.refund_clearing_minor,
    )


def _encode_movement(movement: StatementMovement) -> pb.StatementMovement:
    return pb.StatementMovement(
        ledger_entry=encode_ledger_entry(movement.entry),
        running_net_amount=movement.running_net_minor,
    )
