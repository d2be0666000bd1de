"""Client certificates: who is known by one, and who is not, over real TLS channels."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from billing.api.authentication import NoTokenIssuer
from billing.api.client_access import ClientAccessFile
from billing.caller.connection import ClientCertificate, open_channel
from billing.config import ConfigurationInvalid
from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_pb2_grpc
from tests.factories.api_server import KEY, NO_PROXY, SUBSCRIPTION, ApiUnderTest, bearer
from tests.factories.certificates import DAY, LOOPBACK, Authority, Issued, dns, uri

REQUEST = pb.GetBalanceRequest(tenant_id="acme", subscription_id=SUBSCRIPTION)
AUTHORITY = Authority()
CLIENTS = """
[clients."usage-gateway.internal"]
subject = "usage-gateway"
tenants = ["acme"]
livemode = true
capabilities = ["billing.ledger:read"]

[clients."spiffe://example/finance"]
subject = "finance"
tenants = "*"
livemode = false
capabilities = "*"

[clients."Nightly Job"]
subject = "nightly"
tenants = ["acme"]
livemode = true
capabilities = ["billing.run:execute"]
"""


class MtlsApi(ApiUnderTest):
    """A server with an address for tokens and one for client certificates."""

    def __init__(self, directory: Path, clients: str = CLIENTS, **settings: Any) -> None:
        self.clients_file = directory / "clients.toml"
        self.clients_file.write_text(clients)
        self.certificate_file, self.key_file = AUTHORITY.issue("billing", LOOPBACK).write(
            directory, "server"
        )
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(AUTHORITY.certificate)
        self.client_access = ClientAccessFile(self.clients_file)
        super().__init__(
            directory,
            client_access=self.client_access,
            listen_address="127.0.0.1:0",
            mtls_listen_address="127.0.0.1:0",
            tls_certificate_file=self.certificate_file,
            tls_private_key_file=self.key_file,
            tls_client_ca_file=self.ca_file,
            client_access_file=self.clients_file,
            **settings,
        )

    def channel(self, client: Issued | None) -> grpc.aio.Channel:
        """Connect with a client certificate, or where one needs none."""
        address = self.server.mtls_address if client else self.server.address
        assert address is not None
        return tls_channel(address, client)


def tls_channel(address: str, client: Issued | None) -> grpc.aio.Channel:
    key, certificate = (client.key, client.certificate) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(AUTHORITY.certificate, key, certificate)
    return grpc.aio.secure_channel(address, credentials, NO_PROXY)


@asynccontextmanager
async def serving(api: ApiUnderTest) -> AsyncIterator[None]:
    await api.server.start()
    try:
        yield
    finally:
        await api.server.stop(0)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[MtlsApi]:
    made = MtlsApi(tmp_path)
    async with serving(made):
        yield made


async def get_balance(
    channel: grpc.aio.Channel, *metadata: tuple[str, str], request: pb.GetBalanceRequest = REQUEST
) -> int:
    stub = ledger_pb2_grpc.LedgerServiceStub(channel)
    answer = await stub.GetBalance(request, metadata=metadata, timeout=30)
    return answer.balance.outstanding_amount


async def refusal_of(
    api: MtlsApi, client: Issued | None, *metadata: tuple[str, str]
) -> tuple[str, str, str]:
    """Code, reason and message of a refused call."""
    async with api.channel(client) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get_balance(channel, *metadata)
    error: Any = refused.value
    status: status_pb2.Status | None = rpc_status.from_call(error)
    assert status is not None, error
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return error.code().name, info.reason, error.details()


@pytest.mark.parametrize(
    ("client", "subject", "livemode"),
    [
        (AUTHORITY.issue("anything", dns("usage-gateway.internal")), "usage-gateway", True),
        (AUTHORITY.issue("", dns("x.internal", "USAGE-Gateway.internal")), "usage-gateway", True),
        (AUTHORITY.issue("", uri("spiffe://example/finance")), "finance", False),
    ],
    ids=["dns", "second-dns-without-case", "uri"],
)
async def test_a_known_name_in_the_certificate_is_the_caller(
    api: MtlsApi, client: Issued, subject: str, livemode: bool
) -> None:
    async with api.channel(client) as channel:
        assert await get_balance(channel) == 7
    assert api.ledger.principals[0].subject == subject
    assert api.ledger.scopes[0].livemode is livemode


async def test_the_common_name_counts_only_without_alternative_names(api: MtlsApi) -> None:
    # Nightly Job may not read balances: that it is told so shows that it is known.
    code, reason, _ = await refusal_of(api, AUTHORITY.issue("Nightly Job"))
    assert (code, reason) == ("PERMISSION_DENIED", "CAPABILITY_MISSING")
    _, reason, _ = await refusal_of(api, AUTHORITY.issue("Nightly Job", dns("other.internal")))
    assert reason == "CLIENT_CERTIFICATE_UNKNOWN"


async def test_a_known_client_is_kept_to_its_tenants(api: MtlsApi) -> None:
    client = AUTHORITY.issue("", dns("usage-gateway.internal"))
    other = pb.GetBalanceRequest(tenant_id="umbrella", subscription_id=SUBSCRIPTION)
    async with api.channel(client) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get_balance(channel, request=other)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("client", "told"),
    [
        (AUTHORITY.issue("", dns("stranger.internal")), "of 'stranger.internal', is not known"),
        (AUTHORITY.issue(""), "of nobody, is not known"),
        (
            AUTHORITY.issue("", [*dns("usage-gateway.internal"), *uri("spiffe://example/finance")]),
            "names several clients",
        ),
    ],
    ids=["unknown", "nameless", "two-clients"],
)
async def test_a_good_certificate_of_somebody_unknown_is_refused_with_what_to_do(
    api: MtlsApi, client: Issued, told: str
) -> None:
    code, reason, message = await refusal_of(api, client)
    assert (code, reason) == ("UNAUTHENTICATED", "CLIENT_CERTIFICATE_UNKNOWN")
    assert told in message
    assert "have it entered in the service's file of clients" in message
    assert api.ledger.scopes == []


async def test_a_token_wins_over_a_certificate(api: MtlsApi) -> None:
    client = AUTHORITY.issue("", dns("usage-gateway.internal"))
    async with api.channel(client) as channel:
        await get_balance(channel, bearer(KEY.token(sub="grace")))
    assert api.ledger.principals[0].subject == "grace"
    # A bad one is not made good by the certificate: the caller meant it.
    _, reason, _ = await refusal_of(api, client, bearer("nonsense"))
    assert reason == "CREDENTIALS_INVALID"
    # And a token makes good that the certificate's name is unknown.
    async with api.channel(AUTHORITY.issue("", dns("stranger.internal"))) as channel:
        assert await get_balance(channel, bearer(KEY.token())) == 7


async def test_the_address_for_tokens_asks_for_no_certificate_and_takes_none(
    api: MtlsApi,
) -> None:
    async with api.channel(None) as channel:
        assert await get_balance(channel, bearer(KEY.token())) == 7
    code, reason, _ = await refusal_of(api, None)
    assert (code, reason) == ("UNAUTHENTICATED", "CREDENTIALS_MISSING")
    client = AUTHORITY.issue("", dns("usage-gateway.internal"))
    async with tls_channel(api.server.address, client) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get_balance(channel)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    "client",
    [
        None,
        Authority("another").issue("", dns("usage-gateway.internal")),
        AUTHORITY.issue("", dns("usage-gateway.internal"), expires_in=-DAY),
        # An authority's name does not make one: the signature is not of its key.
        Authority(AUTHORITY.name).issue("", dns("usage-gateway.internal")),
    ],
    ids=["none", "other-authority", "expired", "forged"],
)
async def test_without_a_good_certificate_there_is_no_connection(
    api: MtlsApi, client: Issued | None
) -> None:
    assert api.server.mtls_address is not None
    async with tls_channel(api.server.mtls_address, client) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get_balance(channel, bearer(KEY.token()))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert api.ledger.scopes == []


async def test_health_is_told_at_both_addresses(api: MtlsApi) -> None:
    for client in (None, AUTHORITY.issue("", dns("stranger.internal"))):
        async with api.channel(client) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_clients_can_be_added_and_taken_away_while_connected(api: MtlsApi) -> None:
    api.client_access._clients._look_seconds = 0.0
    client = AUTHORITY.issue("", dns("usage-gateway.internal"))
    async with api.channel(client) as channel:
        assert await get_balance(channel) == 7
        api.clients_file.write_text(CLIENTS.replace("usage-gateway.internal", "new.internal"))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get_balance(channel)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        # A broken file changes nothing, so that a slip of the pen locks nobody out.
        api.clients_file.write_text("[clients")
    async with api.channel(AUTHORITY.issue("", dns("new.internal"))) as channel:
        assert await get_balance(channel) == 7


async def test_with_certificates_alone_every_token_is_refused(tmp_path: Path) -> None:
    api = MtlsApi(tmp_path, authenticator=NoTokenIssuer())
    async with serving(api):
        client = AUTHORITY.issue("", dns("usage-gateway.internal"))
        async with api.channel(client) as channel:
            assert await get_balance(channel) == 7
        code, reason, message = await refusal_of(api, None, bearer(KEY.token()))
        assert (code, reason) == ("UNAUTHENTICATED", "CREDENTIALS_INVALID")
        assert "present a client certificate at its mTLS address" in message


async def served_certificate(address: str) -> str:
    """The certificate that a new client sees."""
    host, port = address.split(":")
    served = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return served.strip()


async def test_a_renewed_certificate_is_served_to_the_next_client(api: MtlsApi) -> None:
    before = await served_certificate(api.server.address)
    renewed = AUTHORITY.issue("billing", LOOPBACK, expires_in=5 * DAY)
    # Half-way through, certificate and key do not fit: the old ones stay.
    api.certificate_file.write_bytes(renewed.certificate)
    assert await served_certificate(api.server.address) == before
    renewed.write(api.certificate_file.parent, "server")
    assert await served_certificate(api.server.address) == renewed.certificate.decode().strip()
    async with api.channel(AUTHORITY.issue("", dns("usage-gateway.internal"))) as channel:
        assert await get_balance(channel) == 7


async def test_a_renewed_authority_counts_for_the_next_client(api: MtlsApi) -> None:
    successor = Authority("successor")
    client = successor.issue("", dns("usage-gateway.internal"))
    async with api.channel(client) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await get_balance(channel)
    api.ca_file.write_bytes(AUTHORITY.certificate + successor.certificate)
    for good in (client, AUTHORITY.issue("", dns("usage-gateway.internal"))):
        async with api.channel(good) as channel:
            assert await get_balance(channel) == 7


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda api: api.ca_file.write_bytes(b"no PEM"), "BILLING_TLS_CLIENT_CA_FILE"),
        (lambda api: api.ca_file.write_bytes(b""), "BILLING_TLS_CLIENT_CA_FILE"),
        (lambda api: api.ca_file.unlink(), "BILLING_TLS_CLIENT_CA_FILE"),
        (lambda api: api.key_file.write_bytes(AUTHORITY.issue("x").key), "BILLING_TLS_PRIVATE_KEY"),
    ],
    ids=["damaged", "empty", "missing", "other-key"],
)
async def test_files_that_cannot_be_used_are_named_at_the_start(
    tmp_path: Path, spoil: Callable[[MtlsApi], object], named: str
) -> None:
    api = MtlsApi(tmp_path)
    spoil(api)
    with pytest.raises(ConfigurationInvalid, match=named):
        await api.server.start()
    await api.server.stop(0)


async def test_a_command_line_is_known_by_its_certificate(api: MtlsApi, tmp_path: Path) -> None:
    address = api.server.mtls_address
    assert address is not None
    certificate, key = AUTHORITY.issue("gateway", dns("usage-gateway.internal")).write(
        tmp_path, "gateway"
    )

    def call() -> pb.GetBalanceResponse:
        with open_channel(
            address,
            root_certificates=api.ca_file,
            client_certificate=ClientCertificate(certificate, key),
        ) as channel:
            untyped: Any = channel
            stub: Any = ledger_pb2_grpc.LedgerServiceStub(untyped)
            answer: pb.GetBalanceResponse = stub.GetBalance(REQUEST, timeout=30)
            return answer

    assert (await asyncio.to_thread(call)).HasField("balance")
