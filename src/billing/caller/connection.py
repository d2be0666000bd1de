"""The way to the service: channel and token."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import grpc

from billing.caller.errors import OptionsInvalid
from billing.config import is_loopback

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
TOKEN_VARIABLE: Final = "BILLING_TOKEN"  # noqa: S105  its name, not its value
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # One that is gone without a word is noticed, by calls without a deadline too.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # A service that restarts is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


class ClientCertificate(NamedTuple):
    """The PEM files of a client certificate: the chain, and its private key."""

    certificate: Path
    key: Path


def client_certificate_of(certificate: Path | None, key: Path | None) -> ClientCertificate | None:
    """Return the client certificate of two options that go together; raises OptionsInvalid."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise OptionsInvalid("--client-certificate and --client-key go together")
    return ClientCertificate(certificate, key)


def open_channel(
    address: str,
    *,
    tls: bool | None = None,
    root_certificates: Path | None = None,
    client_certificate: ClientCertificate | None = None,
) -> grpc.Channel:
    """Return a channel; with TLS unless the service is on this machine; raises OptionsInvalid."""
    try:
        local = is_loopback(address)
    except ValueError:
        raise OptionsInvalid(
            f"--address {address}: expected is host:port, [ipv6]:port or unix:/path"
        ) from None
    secure = not local if tls is None else tls
    options = [*_OPTIONS, ("grpc.enable_http_proxy", 0)] if local else list(_OPTIONS)
    if secure or root_certificates is not None or client_certificate is not None:
        if tls is False:
            raise OptionsInvalid("--root-certificates: they are for TLS, not for --plaintext")
        credentials = _credentials(root_certificates, client_certificate)
        return grpc.secure_channel(address, credentials, options=options)
    return grpc.insecure_channel(address, options=options)


def _credentials(
    root_certificates: Path | None, client: ClientCertificate | None
) -> grpc.ChannelCredentials:
    roots = None
    if root_certificates is not None:
        roots = _read(root_certificates, "--root-certificates")
    if client is None:
        return grpc.ssl_channel_credentials(roots)
    return grpc.ssl_channel_credentials(
        roots,
        _read(client.key, "--client-key"),
        _read(client.certificate, "--client-certificate"),
    )


def token_reader(token_file: Path | None) -> Callable[[], str]:
    """Return what reads the token, anew at each call of a file; raises OptionsInvalid."""
    if token_file is not None:
        _token_of(token_file)
        return lambda: _token_of(token_file)
    token = _checked(os.environ.get(TOKEN_VARIABLE, ""), f"set {TOKEN_VARIABLE} or --token-file")
    return lambda: token


def _token_of(token_file: Path) -> str:
    text = _read(token_file, "--token-file").decode(errors="replace")
    return _checked(text, f"--token-file {token_file} holds none")


def _checked(text: str, problem: str) -> str:
    token = text.strip()
    if not (token and token.isascii() and token.isprintable()):
        raise OptionsInvalid(f"no token: {problem}")
    return token


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise OptionsInvalid(f"{option} {path}: {error.strerror}") from error
