"""The way to the service: channel and token."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import grpc

from billing.caller.errors import OptionsInvalid
from billing.config import is_loopback

DEFAULT_ADDRESS: Final = "127.0.0.1:50051"
TOKEN_VARIABLE: Final = "BILLING_TOKEN"  # noqa: S105  its name, not its value
_MAX_ANSWER_BYTES: Final = 16 * 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_ANSWER_BYTES),
    # A service that restarts is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def open_channel(
    address: str, *, tls: bool | None = None, root_certificates: Path | None = None
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
    if secure or root_certificates is not None:
        if tls is False:
            raise OptionsInvalid("--root-certificates: they are for TLS, not for --plaintext")
        return grpc.secure_channel(address, _credentials(root_certificates), options=options)
    return grpc.insecure_channel(address, options=options)


def _credentials(root_certificates: Path | None) -> grpc.ChannelCredentials:
    if root_certificates is None:
        return grpc.ssl_channel_credentials()
    return grpc.ssl_channel_credentials(_read(root_certificates, "--root-certificates"))


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
