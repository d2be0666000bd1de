"""LedgerService."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from billing.api.converters import explanations as convert_explanations
from billing.api.converters import ledger as convert
from billing.api.converters import ledger_audit as convert_audit
from billing.api.converters import ledger_export as convert_export
from billing.api.converters import ledger_statements as convert_statements
from billing.api.converters.charges import encode_charge
from billing.api.converters.values import (
    decode_id,
    decode_optional_id,
    decode_optional_time,
    decode_time_range,
)
from billing.api.page_tokens import next_page_token, page_request
from billing.api.request_context import Context, current_scope
from billing.domain import identifiers
from billing.services.explanations import ExplanationService
from billing.services.ledger import LedgerService
from billing.services.ledger_audit import LedgerAuditService
from billing.services.ledger_export import LedgerExportService
from billing.services.ledger_statements import LedgerStatementService
from billing.v1 import balance_explanation_pb2, charge_pb2, explanation_pb2, ledger_pb2_grpc
from billing.v1 import ledger_audit_pb2 as audit_pb
from billing.v1 import ledger_export_pb2 as export_pb
from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_statement_pb2 as statement_pb


class LedgerServicer(ledger_pb2_grpc.LedgerServiceServicer):
    """Reads the ledger."""

    def __init__(
        self,
        ledger: LedgerService,
        statements: LedgerStatementService,
        exports: LedgerExportService,
        explanations: ExplanationService,
        audit: LedgerAuditService,
    ) -> None:
        self._ledger = ledger
        self._statements = statements
        self._exports = exports
        self._explanations = explanations
        self._audit = audit

    async def GetBalance(
        self, request: pb.GetBalanceRequest, context: Context
    ) -> pb.GetBalanceResponse:
        """Return what a subscription owes."""
        balance = await self._ledger.get_balance(
            current_scope(request),
            decode_id(identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"),
            as_of=decode_optional_time(request, "as_of"),
        )
        return pb.GetBalanceResponse(balance=convert.encode_balance(balance))

    async def GetAccountBalances(
        self, request: statement_pb.GetAccountBalancesRequest, context: Context
    ) -> pb.GetAccountBalancesResponse:
        """Return what is in each account of a subscription."""
        balances = await self._statements.get_account_balances(
            current_scope(request),
            decode_id(identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"),
            as_of=decode_optional_time(request, "as_of"),
        )
        return convert_statements.encode_account_balances(balances)

    async def GetStatement(
        self, request: statement_pb.GetStatementRequest, context: Context
    ) -> pb.GetStatementResponse:
        """Return a page of how a subscription came from one balance to another."""
        statement = await self._statements.get_statement(
            current_scope(request),
            page_request(request, key_length=3),
            subscription_id=decode_id(
                identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
            ),
            billing_period_id=decode_optional_id(
                identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
            ),
            span=decode_time_range(request, "posted_from", "posted_until"),
        )
        token = next_page_token(statement.part.movements, request)
        return convert_statements.encode_statement(statement, next_page_token=token)

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
            entry_filter=convert.decode_entry_filter(request),
        )
        return pb.ListLedgerEntriesResponse(
            ledger_entries=[convert.encode_ledger_entry(entry) for entry in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def ListLedgerTransactions(
        self, request: statement_pb.ListLedgerTransactionsRequest, context: Context
    ) -> statement_pb.ListLedgerTransactionsResponse:
        """List the ledger transactions of a subscription with their totals."""
        page, currency = await self._statements.list_ledger_transactions(
            current_scope(request),
            page_request(request),
            subscription_id=decode_id(
                identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
            ),
            source_type=convert.decode_source_type(
                request.initiating_source_type, "initiating_source_type"
            ),
            span=decode_time_range(request, "created_from", "created_until"),
        )
        return statement_pb.ListLedgerTransactionsResponse(
            ledger_transactions=[
                convert_statements.encode_transaction_summary(summary, currency)
                for summary in page.items
            ],
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

    async def ExportLedger(
        self, request: export_pb.ExportLedgerRequest, context: Context
    ) -> AsyncIterator[export_pb.ExportLedgerResponse]:
        """Stream the ledger as a file."""
        writer = convert_export.export_writer(request.format)
        pages = self._exports.export_ledger(
            current_scope(request), convert_export.decode_selection(request)
        )
        text, entry_count = writer.begin(), 0
        async with aclosing(pages):
            async for entries in pages:
                text += writer.write(entries)
                entry_count += len(entries)
                yield export_pb.ExportLedgerResponse(content=text.encode(), entry_count=entry_count)
                text = ""
        yield export_pb.ExportLedgerResponse(content=writer.end().encode(), entry_count=entry_count)

    async def ListCharges(
        self, request: charge_pb2.ListChargesRequest, context: Context
    ) -> charge_pb2.ListChargesResponse:
        """List the charges of a subscription."""
        page = await self._explanations.list_charges(
            current_scope(request),
            page_request(request),
            subscription_id=decode_id(
                identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
            ),
            billing_period_id=decode_optional_id(
                identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
            ),
        )
        return charge_pb2.ListChargesResponse(
            charges=[encode_charge(charge) for charge in page.items],
            next_page_token=next_page_token(page, request),
        )

    async def ExplainCharge(
        self, request: explanation_pb2.ExplainChargeRequest, context: Context
    ) -> explanation_pb2.ExplainChargeResponse:
        """Explain one charge."""
        explained = await self._explanations.explain_charge(
            current_scope(request),
            page_request(request, key_length=2),
            decode_id(identifiers.CHARGE, request.charge_id, "charge_id"),
        )
        return explanation_pb2.ExplainChargeResponse(
            explanation=convert_explanations.encode_charge_explanation(explained),
            next_page_token=next_page_token(explained.usage_page, request),
        )

    async def ExplainBalance(
        self, request: balance_explanation_pb2.ExplainBalanceRequest, context: Context
    ) -> balance_explanation_pb2.ExplainBalanceResponse:
        """Explain how a balance moved."""
        explained = await self._explanations.explain_balance(
            current_scope(request),
            decode_id(identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"),
            after=decode_optional_time(request, "posted_after"),
            until=decode_optional_time(request, "posted_until"),
        )
        return balance_explanation_pb2.ExplainBalanceResponse(
            explanation=convert_explanations.encode_balance_explanation(explained)
        )

    async def AuditLedger(
        self, request: audit_pb.AuditLedgerRequest, context: Context
    ) -> audit_pb.AuditLedgerResponse:
        """Compare what the books say of the same thing."""
        scope, position = current_scope(request), convert_audit.decode_position(request)
        subscription_id = decode_optional_id(
            identifiers.SUBSCRIPTION, request.subscription_id, "subscription_id"
        )
        if subscription_id is not None:
            audit = await self._audit.audit_subscription(
                scope, subscription_id, with_invoices=not request.skip_invoices
            )
        else:
            audit = await self._audit.audit_ledger(
                scope, position, with_invoices=not request.skip_invoices
            )
        return convert_audit.encode_audit(audit, request, position)
