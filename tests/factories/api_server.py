"""A server with a ledger of canned answers: all of the transport, and no database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from opentelemetry import trace

from billing.api.authentication import Authenticator, JwtAuthenticator, Principal
from billing.api.client_access import ClientAccessFile
from billing.api.request_context import (
    Context,
    current_principal,
    current_request_id,
    current_scope,
)
from billing.api.server import ApiServer, Registration
from billing.api.signing_keys import KeyFile
from billing.config import Settings
from billing.domain.scope import Scope
from billing.observability.metrics import Metrics
from billing.v1 import (
    balance_explanation_pb2,
    charge_pb2,
    explanation_pb2,
    ledger_audit_pb2,
    ledger_pb2_grpc,
)
from billing.v1 import ledger_export_pb2 as export_pb
from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_statement_pb2 as statement_pb
from tests.factories.tokens import IssuerKey, write_jwks

KEY = IssuerKey()
NO_PROXY = [("grpc.enable_http_proxy", 0)]
SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"


class CannedLedger(ledger_pb2_grpc.LedgerServiceServicer):
    """Answers GetBalance at once, ExportLedger in parts, fails as told, or waits; notes it all."""

    def __init__(self) -> None:
        self.failure: BaseException | None = None
        self.waits = False
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()
        self.was_cancelled = asyncio.Event()
        self.scopes: list[Scope] = []
        self.principals: list[Principal] = []
        self.request_ids: list[str] = []
        self.trace_ids: list[int] = []
        self.floods = False
        self.stream_closed = asyncio.Event()

    async def GetBalance(
        self, request: pb.GetBalanceRequest, context: Context
    ) -> pb.GetBalanceResponse:
        self.scopes.append(current_scope(request))
        self.principals.append(current_principal())
        self.trace_ids.append(trace.get_current_span().get_span_context().trace_id)
        self.began.set()
        if self.waits:
            await self._wait()
        self.request_ids.append(current_request_id())
        if self.failure is not None:
            raise self.failure
        return pb.GetBalanceResponse(
            balance=pb.Balance(subscription_id=request.subscription_id, outstanding_amount=7)
        )

    async def _wait(self) -> None:
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.was_cancelled.set()
            raise

    async def ExportLedger(
        self, request: export_pb.ExportLedgerRequest, context: Context
    ) -> AsyncIterator[export_pb.ExportLedgerResponse]:
        """Answer three times, and wait, fail or never end before the last."""
        self.scopes.append(current_scope(request))
        self.principals.append(current_principal())
        self.trace_ids.append(trace.get_current_span().get_span_context().trace_id)
        self.request_ids.append(current_request_id())
        try:
            for number in (1, 2):
                yield export_pb.ExportLedgerResponse(content=b"part\n", entry_count=number)
            self.began.set()
            while self.floods:
                yield export_pb.ExportLedgerResponse(content=bytes(1_000_000))
            if self.waits:
                await self._wait()
            if self.failure is not None:
                raise self.failure
            yield export_pb.ExportLedgerResponse(content=b"part\n", entry_count=3)
        finally:
            self.stream_closed.set()

    async def ListLedgerEntries(
        self, request: pb.ListLedgerEntriesRequest, context: Context
    ) -> pb.ListLedgerEntriesResponse:
        return pb.ListLedgerEntriesResponse()

    async def GetLedgerTransaction(
        self, request: pb.GetLedgerTransactionRequest, context: Context
    ) -> pb.GetLedgerTransactionResponse:
        return pb.GetLedgerTransactionResponse()

    async def GetAccountBalances(
        self, request: statement_pb.GetAccountBalancesRequest, context: Context
    ) -> pb.GetAccountBalancesResponse:
        return pb.GetAccountBalancesResponse()

    async def GetStatement(
        self, request: statement_pb.GetStatementRequest, context: Context
    ) -> pb.GetStatementResponse:
        return pb.GetStatementResponse()

    async def ListLedgerTransactions(
        self, request: statement_pb.ListLedgerTransactionsRequest, context: Context
    ) -> statement_pb.ListLedgerTransactionsResponse:
        return statement_pb.ListLedgerTransactionsResponse()

    async def GetTrialBalance(
        self, request: pb.GetTrialBalanceRequest, context: Context
    ) -> pb.GetTrialBalanceResponse:
        return pb.GetTrialBalanceResponse()

    async def ListCharges(
        self, request: charge_pb2.ListChargesRequest, context: Context
    ) -> charge_pb2.ListChargesResponse:
        return charge_pb2.ListChargesResponse()

    async def ExplainCharge(
        self, request: explanation_pb2.ExplainChargeRequest, context: Context
    ) -> explanation_pb2.ExplainChargeResponse:
        return explanation_pb2.ExplainChargeResponse()

    async def ExplainBalance(
        self, request: balance_explanation_pb2.ExplainBalanceRequest, context: Context
    ) -> balance_explanation_pb2.ExplainBalanceResponse:
        return balance_explanation_pb2.ExplainBalanceResponse()

    async def AuditLedger(
        self, request: ledger_audit_pb2.AuditLedgerRequest, context: Context
    ) -> ledger_audit_pb2.AuditLedgerResponse:
        return ledger_audit_pb2.AuditLedgerResponse()


class FakeDatabase:
    """Answers a ping, or not."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.was_asked = asyncio.Event()

    async def ping(self) -> None:
        self.was_asked.set()
        if self.failure is not None:
            raise self.failure


class ApiUnderTest:
    """A server that can be started, and what its parts noted."""

    def __init__(
        self,
        directory: Path,
        *,
        authenticator: Authenticator | None = None,
        client_access: ClientAccessFile | None = None,
        **settings: Any,
    ) -> None:
        self.ledger = CannedLedger()
        self.database = FakeDatabase()
        self.metrics = Metrics()
        self.settings = Settings(**{"listen_address": f"unix:{directory}/api.sock", **settings})
        self.server = ApiServer(
            self.settings,
            [ledger_registration(self.ledger)],
            authenticator=authenticator
            or JwtAuthenticator(KeyFile(write_jwks(directory / "jwks.json", KEY))),
            metrics=self.metrics,
            database_ping=self.database.ping,
            client_access=client_access,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[grpc.aio.Channel]:
        """Serve, and connect to it."""
        await self.server.start()
        try:
            async with grpc.aio.insecure_channel(self.server.address, NO_PROXY) as channel:
                yield channel
        finally:
            await self.server.stop(0)

    def rpcs_counted(self, code: str, method: str = "GetBalance") -> float | None:
        """How many RPCs ended with the code."""
        labels = {
            "grpc_service": "billing.v1.LedgerService",
            "grpc_method": method,
            "grpc_code": code,
        }
        return self.metrics.registry.get_sample_value("billing_rpcs_total", labels)


def ledger_registration(servicer: ledger_pb2_grpc.LedgerServiceServicer) -> Registration:
    """The ledger service, as a server takes it."""
    return (
        ledger_pb2_grpc.add_LedgerServiceServicer_to_server,
        servicer,
        pb.DESCRIPTOR.services_by_name["LedgerService"],
    )


def bearer(token: str) -> tuple[str, str]:
    """The metadata that carries a token."""
    return ("authorization", f"Bearer {token}")
