"""The server: where it listens, how it tells its health, how it stops."""

import asyncio
import datetime
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from billing.api import health
from billing.api.access import ContractIncomplete
from billing.api.server import ListenAddressUnavailable
from billing.config import ConfigurationInvalid
from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_pb2_grpc
from tests.factories.api_server import KEY, NO_PROXY, SUBSCRIPTION, ApiUnderTest, bearer
from tests.factories.tokens import ec_key

REQUEST = pb.GetBalanceRequest(tenant_id="acme", subscription_id=SUBSCRIPTION)
GOOD = [bearer(KEY.token())]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


def watch(channel: grpc.aio.Channel, service: str = "") -> Any:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=30)


async def get_balance(channel: grpc.aio.Channel) -> int:
    stub = ledger_pb2_grpc.LedgerServiceStub(channel)
    answer = await stub.GetBalance(REQUEST, metadata=GOOD)
    return answer.balance.outstanding_amount


async def test_port_0_gets_a_port_that_the_address_tells(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, listen_address="127.0.0.1:0")
    async with api.running() as channel:
        assert api.server.address.startswith("127.0.0.1:")
        assert not api.server.address.endswith(":0")
        assert await get_balance(channel) == 7


async def test_an_address_in_use_is_named(tmp_path: Path) -> None:
    first = ApiUnderTest(tmp_path, listen_address="127.0.0.1:0")
    async with first.running():
        second = ApiUnderTest(tmp_path, listen_address=first.server.address)
        with pytest.raises(ListenAddressUnavailable, match=first.server.address):
            await second.server.start()
        await second.server.stop(0)


def test_plaintext_off_loopback_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationInvalid, match="BILLING_ALLOW_PLAINTEXT"):
        ApiUnderTest(tmp_path, listen_address="0.0.0.0:0")


def test_an_rpc_without_a_capability_keeps_the_server_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.api.access._capability_of", lambda _: "")
    with pytest.raises(ContractIncomplete, match=r"LedgerService\.GetBalance has no required"):
        ApiUnderTest(tmp_path)


async def test_health_follows_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PING_SECONDS", 0.001)
    api = ApiUnderTest(tmp_path)
    api.database.failure = ConnectionRefusedError("nobody listens")
    async with api.running() as channel:
        assert await health_of(channel) == NOT_SERVING
        watching = watch(channel, "billing.v1.LedgerService")
        assert (await watching.read()).status == NOT_SERVING
        api.database.failure = None
        assert (await watching.read()).status == SERVING
        assert await health_of(channel, "billing.v1.LedgerService") == SERVING
        api.database.failure = TimeoutError()
        assert (await watching.read()).status == NOT_SERVING
        assert await health_of(channel) == NOT_SERVING


async def test_liveness_does_not_follow_the_database(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    api.database.failure = ConnectionRefusedError("nobody listens")
    async with api.running() as channel:
        assert await health_of(channel) == NOT_SERVING
        assert await health_of(channel, health.LIVENESS) == SERVING
        assert (await watch(channel, health.LIVENESS).read()).status == SERVING


async def test_a_database_that_hangs_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_PING_TIMEOUT_SECONDS", 0.01)
    api = ApiUnderTest(tmp_path)
    monkeypatch.setattr(api.server._database_watch, "_ping", asyncio.Event().wait)
    async with api.running() as channel:
        assert await health_of(channel) == NOT_SERVING


async def test_a_watcher_who_leaves_takes_no_news_from_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_PING_SECONDS", 0.001)
    api = ApiUnderTest(tmp_path)
    async with api.running() as channel:
        leaving, staying, unknown = watch(channel), watch(channel), watch(channel, "no.Service")
        for watching in (leaving, staying):
            assert (await watching.read()).status == SERVING
        assert (await unknown.read()).status == SERVICE_UNKNOWN
        leaving.cancel()
        api.database.failure = ConnectionRefusedError()
        assert (await staying.read()).status == NOT_SERVING


async def test_a_stop_tells_watchers_and_lets_running_rpcs_end(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    api.ledger.waits = True
    async with api.running() as channel:
        watching = watch(channel)
        assert (await watching.read()).status == SERVING
        running = asyncio.ensure_future(get_balance(channel))
        await asyncio.wait_for(api.ledger.began.wait(), timeout=30)

        stopping = asyncio.create_task(api.server.stop(30))
        assert (await watching.read()).status == NOT_SERVING
        assert await watching.read() is grpc.aio.EOF
        assert not stopping.done()
        async with grpc.aio.insecure_channel(api.server.address, NO_PROXY) as late:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await get_balance(late)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

        api.ledger.may_end.set()
        assert await running == 7
        await asyncio.wait_for(stopping, timeout=30)


async def test_an_rpc_that_outlasts_the_grace_is_cancelled(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    api.ledger.waits = True
    async with api.running() as channel:
        running = asyncio.ensure_future(get_balance(channel))
        await asyncio.wait_for(api.ledger.began.wait(), timeout=30)
        await asyncio.wait_for(api.server.stop(0.01), timeout=30)
        with pytest.raises(grpc.aio.AioRpcError):
            await running
        assert api.ledger.was_cancelled.is_set()


async def test_a_stop_without_a_start_and_a_second_stop_do_nothing(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path)
    await api.server.stop(0)
    api = ApiUnderTest(tmp_path)
    async with api.running():
        await api.server.stop(0)
        await api.server.stop(0)


async def test_reflection_can_be_switched_off(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, reflection=False)
    async with api.running() as channel:
        connected: Any = channel
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(connected)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest()]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_more_rpcs_at_a_time_than_allowed_are_refused(tmp_path: Path) -> None:
    api = ApiUnderTest(tmp_path, max_concurrent_rpcs=1)
    api.ledger.waits = True
    async with api.running() as channel:
        running = asyncio.ensure_future(get_balance(channel))
        await asyncio.wait_for(api.ledger.began.wait(), timeout=30)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get_balance(channel)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        api.ledger.may_end.set()
        assert await running == 7


def self_signed(directory: Path) -> tuple[Path, Path]:
    """A certificate of localhost, and its key."""
    key: Any = ec_key().private_key
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_file, key_file


async def test_tls_is_served_with_the_configured_certificate(tmp_path: Path) -> None:
    certificate_file, key_file = self_signed(tmp_path)
    api = ApiUnderTest(
        tmp_path,
        listen_address="0.0.0.0:0",
        tls_certificate_file=certificate_file,
        tls_private_key_file=key_file,
    )
    async with api.running() as plaintext:
        trusted = grpc.ssl_channel_credentials(certificate_file.read_bytes())
        target = f"localhost:{api.server.address.rpartition(':')[2]}"
        async with grpc.aio.secure_channel(target, trusted, NO_PROXY) as channel:
            assert await get_balance(channel) == 7
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get_balance(plaintext)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("content", [None, b"no PEM"], ids=["missing", "damaged"])
async def test_a_certificate_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None
) -> None:
    certificate_file, key_file = self_signed(tmp_path)
    certificate_file.unlink()
    if content is not None:
        certificate_file.write_bytes(content)
    api = ApiUnderTest(
        tmp_path, tls_certificate_file=certificate_file, tls_private_key_file=key_file
    )
    with pytest.raises(ConfigurationInvalid, match="BILLING_TLS_CERTIFICATE_FILE"):
        await api.server.start()
