"""TLS as the settings say it, through the wiring: towards callers, and towards invoicing."""

from pathlib import Path

import grpc
import grpc.aio
import pytest

from billing.bootstrap import running_service
from billing.bootstrap.running import _invoicing_tls
from billing.clients.invoicing import InvoicingTls
from billing.config import ConfigurationInvalid, Settings
from billing.v1 import catalog_pb2, catalog_pb2_grpc
from tests.factories.certificates import LOOPBACK, Authority, Issued, dns

AUTHORITY = Authority()
CLIENTS = """
[clients."gateway.internal"]
subject = "gateway"
tenants = ["acme"]
livemode = true
capabilities = ["billing.catalog:read"]
"""


async def test_a_service_that_knows_its_callers_by_certificate_alone(
    database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "clients.toml").write_text(CLIENTS)
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.certificate)
    certificate_file, key_file = AUTHORITY.issue("billing", LOOPBACK).write(tmp_path, "server")
    settings = Settings(
        database_url=database_url,
        listen_address=f"unix:{tmp_path}/tokens.sock",
        mtls_listen_address=f"unix:{tmp_path}/mtls.sock",
        tls_certificate_file=certificate_file,
        tls_private_key_file=key_file,
        tls_client_ca_file=tmp_path / "ca.pem",
        client_access_file=tmp_path / "clients.toml",
        metrics_address=None,
    )
    client = AUTHORITY.issue("", dns("gateway.internal"))
    credentials = grpc.ssl_channel_credentials(
        AUTHORITY.certificate, client.key, client.certificate
    )
    options = [("grpc.ssl_target_name_override", "localhost")]
    request = catalog_pb2.ListPlansRequest(tenant_id="acme")
    async with running_service(settings, api=True, worker=False):
        assert settings.mtls_listen_address is not None
        async with grpc.aio.secure_channel(
            settings.mtls_listen_address, credentials, options
        ) as channel:
            await catalog_pb2_grpc.CatalogServiceStub(channel).ListPlans(request, timeout=30)
        async with grpc.aio.secure_channel(
            settings.listen_address, credentials, options
        ) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await catalog_pb2_grpc.CatalogServiceStub(channel).ListPlans(
                    request, timeout=30, metadata=[("authorization", "Bearer a.b.c")]
                )
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "no token issuer" in (refused.value.details() or "")


def invoicing_settings(directory: Path, ours: Issued | None = None) -> Settings:
    roots = directory / "roots.pem"
    roots.write_bytes(AUTHORITY.certificate)
    certificate_file, key_file = ours.write(directory, "ours") if ours else (None, None)
    return Settings(
        invoicing_tls_root_certificates_file=roots,
        invoicing_tls_certificate_file=certificate_file,
        invoicing_tls_private_key_file=key_file,
    )


def test_the_invoicing_client_gets_the_certificates_of_the_settings(tmp_path: Path) -> None:
    assert _invoicing_tls(Settings()) is None
    assert _invoicing_tls(invoicing_settings(tmp_path)) == InvoicingTls(
        root_certificates=AUTHORITY.certificate
    )
    ours = AUTHORITY.issue("billing-service")
    assert _invoicing_tls(invoicing_settings(tmp_path, ours)) == InvoicingTls(
        root_certificates=AUTHORITY.certificate,
        certificate_chain=ours.certificate,
        private_key=ours.key,
    )


@pytest.mark.parametrize(
    ("spoiled", "named"),
    [
        ("roots.pem", "BILLING_INVOICING_TLS_ROOT_CERTIFICATES_FILE"),
        ("ours.pem", "BILLING_INVOICING_TLS_CERTIFICATE_FILE"),
        ("ours.key", "BILLING_INVOICING_TLS_PRIVATE_KEY_FILE"),
    ],
)
@pytest.mark.parametrize("content", [None, b"no PEM"], ids=["missing", "damaged"])
def test_a_file_that_cannot_be_used_is_named(
    tmp_path: Path, spoiled: str, named: str, content: bytes | None
) -> None:
    settings = invoicing_settings(tmp_path, AUTHORITY.issue("billing-service"))
    (tmp_path / spoiled).unlink()
    if content is not None:
        (tmp_path / spoiled).write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match=named):
        _invoicing_tls(settings)
