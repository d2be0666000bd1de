"""What the server proves itself with, and whom it asks for the same: TLS and mTLS.

There is an address for tokens and another for client certificates, because gRPC for Python knows
but two servers: one that asks no client for a certificate, and one that refuses all without.
"""

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from billing.api.watched_files import WatchedFiles
from billing.config import ConfigurationInvalid, Settings, variable_of


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """Return what ``listen_address`` is served with, None for plaintext.

    A renewed certificate is served to the next client. Raises ConfigurationInvalid.
    """
    if settings.tls_certificate_file is None or settings.tls_private_key_file is None:
        return None
    return _renewed_credentials(
        settings.tls_certificate_file, settings.tls_private_key_file, client_ca_file=None
    )


def mtls_credentials(settings: Settings) -> grpc.ServerCredentials:
    """Return what ``mtls_listen_address`` is served with; raises ConfigurationInvalid."""
    assert settings.tls_certificate_file is not None, "the settings require it for mTLS"
    assert settings.tls_private_key_file is not None, "the settings require it for mTLS"
    return _renewed_credentials(
        settings.tls_certificate_file,
        settings.tls_private_key_file,
        client_ca_file=settings.tls_client_ca_file,
    )


def read_certificate_and_key(
    certificate_file: Path, key_file: Path, *, certificate_field: str, key_field: str
) -> tuple[bytes, bytes]:
    """Return a PEM certificate chain and its key.

    The fields are those of Settings that ConfigurationInvalid names: gRPC itself would say no more
    than that it cannot bind an address, or connect.
    """
    certificate = _read(certificate_file, certificate_field)
    key = _read(key_file, key_field)
    try:
        # The password keeps an encrypted key from being asked for at a terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            certificate_file, key_file, password=""
        )
    except ssl.SSLError as error:
        raise ConfigurationInvalid(
            variable_of(certificate_field),
            f"and {variable_of(key_field)} are no PEM certificate and its unencrypted key: "
            f"{error.reason or error}",
        ) from error
    return certificate, key


def read_authorities(path: Path, field_name: str) -> bytes:
    """Return the PEM certificates of authorities; raises ConfigurationInvalid."""
    certificates = _read(path, field_name)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(
            cadata=certificates.decode("ascii", errors="replace")
        )
    except (ssl.SSLError, ValueError) as error:
        raise ConfigurationInvalid(
            variable_of(field_name), f"names {path}, which holds no PEM certificate"
        ) from error
    return certificates


def _renewed_credentials(
    certificate_file: Path, key_file: Path, *, client_ca_file: Path | None
) -> grpc.ServerCredentials:
    def load() -> grpc.ServerCertificateConfiguration:
        certificate, key = read_certificate_and_key(
            certificate_file,
            key_file,
            certificate_field="tls_certificate_file",
            key_field="tls_private_key_file",
        )
        authorities = None
        if client_ca_file is not None:
            authorities = read_authorities(client_ca_file, "tls_client_ca_file")
        return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)

    files = [certificate_file, key_file, *([client_ca_file] if client_ca_file else [])]
    watched = WatchedFiles(files, load, unusable=ConfigurationInvalid, look_seconds=0.0)
    return grpc.dynamic_ssl_server_credentials(
        watched.current(),
        _news_of(watched),
        require_client_authentication=client_ca_file is not None,
    )


def _news_of(watched: WatchedFiles[grpc.ServerCertificateConfiguration]) -> Callable[[], Any]:
    """Return what gRPC asks before each handshake, on a thread of its own: None is no news.

    (Only gRPC's types do not know that it may be None.)
    """
    told = watched.current()

    def news() -> grpc.ServerCertificateConfiguration | None:
        nonlocal told
        current = watched.current()
        if current is told:
            return None
        told = current
        return current

    return news


def _read(path: Path, field_name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationInvalid(
            variable_of(field_name), f"names {path}, which cannot be read: {error.strerror}"
        ) from error
