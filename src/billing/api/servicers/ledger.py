"""LedgerService."""

from billing.api.converters import ledger as convert
from billing.api.converters.values import decode_id, decode_optional_id, decode_time
from billing.api.page_tokens import next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.services.ledger import LedgerService
from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_pb2_grpc


class LedgerServicer(ledger_pb2_grpc.LedgerServiceServicer):
    """Reads the ledger."""

    def __init__(self, ledger: LedgerService) -> None:
        self._ledger = ledger

    async def GetBalance(
        self, request: pb.GetBalanceRequest, context: Context
    ) -> pb.GetBalanceResponse:
        """Return what a subscription owes."""
        balance = await self._ledger.get_balance(
            current_scope(request),
            decode_id(identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"),
            as_of=decode_time(request.as_of, "as_of") if request.HasField("as_of") else None,
        )
        return pb.GetBalanceResponse(balance=convert.encode_balance(balance))

    async def ListLedgerEntries(
        self, request: pb.ListLedgerEntriesRequest, context: Context
    ) -> pb.ListLedgerEntriesResponse:
        """List the ledger entries of a subscription."""
        page = await self._ledger.list_ledger_entries(
            current_scope(request),
            page_request(request, key_length=2),
            subscription_id=decode_id(
                identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
            ),
            billing_period_id=decode_optional_id(
                identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
            ),
            entry_type=convert.entry_type.decode_filter(request.entry_type),
        )
        return pb.ListLedgerEntriesResponse(
            ledger_entries=[convert.encode_ledger_entry(entry) for entry in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def GetLedgerTransaction(
        self, request: pb.GetLedgerTransactionRequest, context: Context
    ) -> pb.GetLedgerTransactionResponse:
        """Return one ledger transaction with its entries."""
        transaction = await self._ledger.get_ledger_transaction(
            current_scope(request),
            decode_id(
                identifiers.LEDGER_TRANSACTION,
                request.ledger_transaction_id,
                "ledger_transaction_id",
            ),
        )
        return pb.GetLedgerTransactionResponse(
            ledger_transaction=convert.encode_ledger_transaction(transaction)
        )

    async def GetTrialBalance(
        self, request: pb.GetTrialBalanceRequest, context: Context
    ) -> pb.GetTrialBalanceResponse:
        """Return the tenant's debits and credits."""
        lines = await self._ledger.get_trial_balance(current_scope(request))
        return pb.GetTrialBalanceResponse(
            lines=[convert.encode_trial_balance_line(line) for line in lines],
            difference_amount=sum(line.debit_minor - line.credit_minor for line in lines),
        )
