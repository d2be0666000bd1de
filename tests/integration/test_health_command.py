"""`billing health`, as a container's health check runs it: a process of its own, its exit code."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from billing.clients.health import HealthUnknown, health_of, reachable_address
from tests.factories.api_server import ApiUnderTest
from tests.factories.certificates import LOOPBACK, Authority, Issued, dns

AUTHORITY = Authority()


@asynccontextmanager
async def serving(api: ApiUnderTest) -> AsyncIterator[ApiUnderTest]:
    await api.server.start()
    try:
        yield api
    finally:
        await api.server.stop(0)


async def billing_health(*arguments: str, **environ: str) -> tuple[int, str]:
    """Exit code, and what was printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "billing.cli", "health", *arguments),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await asyncio.wait_for(process.communicate(), timeout=60)
    return process.returncode or 0, printed.decode()


async def test_the_exit_code_tells(tmp_path: Path) -> None:
    async with serving(ApiUnderTest(tmp_path, listen_address="127.0.0.1:0")) as api:
        port = api.server.address.rpartition(":")[2]
        listen = f"0.0.0.0:{port}"
        assert await billing_health(BILLING_LISTEN_ADDRESS=listen) == (0, "SERVING\n")
        api.server._health.set_serving(False)
        api.database.failure = ConnectionRefusedError()
        assert await billing_health("--address", api.server.address) == (1, "NOT_SERVING\n")
        assert await billing_health("--service", "liveness", "--address", api.server.address) == (
            0,
            "SERVING\n",
        )
    code, printed = await billing_health("--address", api.server.address)
    assert code == 1
    assert "does not tell its health: UNAVAILABLE" in printed
    assert "Traceback" not in printed


async def test_a_setting_that_cannot_be_used_is_told_in_full() -> None:
    code, printed = await billing_health(BILLING_LISTEN_ADDRESS="localhost")
    assert code == 1
    assert "expected host:port, [ipv6]:port or unix:/path" in printed


async def test_tls_settings_are_respected(tmp_path: Path) -> None:
    certificate_file, key_file = AUTHORITY.issue("", LOOPBACK).write(tmp_path, "server")
    api = ApiUnderTest(
        tmp_path,
        listen_address="127.0.0.1:0",
        tls_certificate_file=certificate_file,
        tls_private_key_file=key_file,
    )
    async with serving(api):
        environ = {"BILLING_LISTEN_ADDRESS": api.server.address}
        code, _ = await billing_health(**environ)
        assert code == 1
        tls = {
            "BILLING_TLS_CERTIFICATE_FILE": str(certificate_file),
            "BILLING_TLS_PRIVATE_KEY_FILE": str(key_file),
        }
        assert await billing_health(**environ, **tls) == (0, "SERVING\n")


@pytest.mark.parametrize(
    "served",
    [
        AUTHORITY.issue("billing", dns("billing.internal", "other.internal")),
        AUTHORITY.issue("", dns("*.billing.internal")),
        AUTHORITY.issue("", LOOPBACK[1:]),
        AUTHORITY.issue("billing"),
    ],
    ids=["host", "wildcard", "address", "common-name"],
)
async def test_the_own_certificate_is_trusted_whatever_its_names(
    tmp_path: Path, served: Issued
) -> None:
    certificate_file, key_file = served.write(tmp_path, "server")
    api = ApiUnderTest(
        tmp_path, tls_certificate_file=certificate_file, tls_private_key_file=key_file
    )
    async with serving(api):
        status = await health_of(
            api.server.address, service="", certificate_file=certificate_file, timeout_seconds=10
        )
        assert status == "SERVING"
        another, _ = AUTHORITY.issue("billing", dns("billing.internal")).write(tmp_path, "another")
        with pytest.raises(HealthUnknown, match="UNAVAILABLE"):
            await health_of(
                api.server.address, service="", certificate_file=another, timeout_seconds=10
            )


@pytest.mark.parametrize(
    ("listen", "reachable"),
    [
        ("0.0.0.0:50051", "127.0.0.1:50051"),
        ("[::]:50051", "[::1]:50051"),
        ("10.1.2.3:50051", "10.1.2.3:50051"),
        ("unix:/run/billing/api.sock", "unix:/run/billing/api.sock"),
    ],
)
def test_an_any_address_is_reached_on_loopback(listen: str, reachable: str) -> None:
    assert reachable_address(listen) == reachable
