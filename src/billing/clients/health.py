"""Asks a server of the API for its health, as the probe of a container does."""

from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from billing.domain.errors import Unavailable


class HealthUnknown(Unavailable):
    """The server gives no answer about its health."""

    def __init__(self, *, address: str, detail: str) -> None:
        super().__init__(f"{address} does not tell its health: {detail}", address=address)


async def health_of(
    address: str, *, service: str, certificate_file: Path | None, timeout_seconds: float
) -> str:
    """Return the status of a service, for example ``SERVING``; "" names the whole server.

    With a ``certificate_file`` the server must prove that it has that certificate (PEM), whatever
    name it is called by and whoever issued it. Raises HealthUnknown, and OSError or ValueError for
    a file that holds no certificate.
    """
    request = health_pb2.HealthCheckRequest(service=service)
    async with _open_channel(address, certificate_file) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its types know no methods
        try:
            response = await stub.Check(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as error:
            detail = f"{error.code().name}: {error.details()}"
            raise HealthUnknown(address=address, detail=detail) from error
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def reachable_address(listen_address: str) -> str:
    """Return where this machine reaches a server that listens there: not at "any address"."""
    host, _, port = listen_address.rpartition(":")
    return {"0.0.0.0": f"127.0.0.1:{port}", "[::]": f"[::1]:{port}"}.get(host, listen_address)  # noqa: S104


def _open_channel(address: str, certificate_file: Path | None) -> grpc.aio.Channel:
    options: list[tuple[str, object]] = [("grpc.enable_http_proxy", 0)]
    if certificate_file is None:
        return grpc.aio.insecure_channel(address, options=options)
    chain = certificate_file.read_bytes()
    options.append(("grpc.ssl_target_name_override", _name_in(chain)))
    credentials = grpc.ssl_channel_credentials(chain)
    return grpc.aio.secure_channel(address, credentials, options=options)


def _name_in(chain: bytes) -> str:
    """Return a name that the chain's own certificate is good for."""
    certificate = x509.load_pem_x509_certificates(chain)[0]
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(common[0].value) if common else ""
    hosts = names.get_values_for_type(x509.DNSName)
    if hosts:
        return hosts[0].replace("*", "health", 1)
    return next(map(str, names.get_values_for_type(x509.IPAddress)), "")
