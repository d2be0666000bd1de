"""Who calls without a token: names in client certificates, and what their bearers may do."""

import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from billing.api.authentication import (
    ClaimInvalid,
    CredentialsRefused,
    Principal,
    principal_of,
)
from billing.api.watched_files import WatchedFiles

AuthContext: TypeAlias = Mapping[str, Iterable[bytes]]
"""What gRPC knows of the peer of a call; it holds a certificate only if that was verified."""

_ENTRY_KEYS: Final = frozenset({"subject", "tenants", "livemode", "capabilities"})
_MAX_SHOWN_NAMES: Final = 5


class ClientAccessUnusable(Exception):
    """The file of clients cannot be read, or says something that cannot be meant."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"the file of clients {path} cannot be used: {problem}")
        self.path = path


class ClientCertificateUnknown(CredentialsRefused):
    """The client certificate is a good one, of somebody who is not on the list."""

    def __init__(self, names: Sequence[str], problem: str) -> None:
        shown = ", ".join(map(repr, names[:_MAX_SHOWN_NAMES])) or "nobody"
        super().__init__(
            f"the client certificate, of {shown}, {problem}; have it entered in the service's "
            "file of clients, or send metadata `authorization: Bearer <token>`",
            names=shown,
        )


def names_in_certificate(auth_context: AuthContext) -> tuple[str, ...] | None:
    """Return the names in the peer's client certificate; None if it presented none.

    Those are its alternative names (DNS and URI), and only without any its common name.
    """
    if b"ssl" not in auth_context.get("transport_security_type", ()):
        return None
    if "x509_pem_cert" not in auth_context:
        return None
    alternative = [*auth_context.get("peer_dns", ()), *auth_context.get("peer_uri", ())]
    names = alternative or auth_context.get("x509_common_name", ())
    return tuple(name.decode(errors="replace") for name in names if name)


class ClientAccessFile:
    """A TOML file that tells of each client what its tokens would, read again when it changes.

        [clients."usage-gateway.internal"]
        subject = "usage-gateway"
        tenants = ["acme"]                        # or "*" for all
        livemode = true
        capabilities = ["billing.usage:write"]    # or "*" for all

    The constructor raises ClientAccessUnusable; later a broken file leaves the clients as they are.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = WatchedFiles(
            [path], lambda: _load(path), unusable=ClientAccessUnusable, clock=clock
        )

    def principal_named(self, names: Sequence[str]) -> Principal:
        """Return the bearer of a certificate with the names; raises ClientCertificateUnknown."""
        clients = self._clients.current()
        known = {clients[name] for name in map(_folded, names) if name in clients}
        if not known:
            raise ClientCertificateUnknown(names, "is not known here")
        if len(known) > 1:
            raise ClientCertificateUnknown(names, "names several clients")
        return known.pop()


def _load(path: Path) -> dict[str, Principal]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ClientAccessUnusable(path, error.strerror or str(error)) from error
    except ValueError as error:  # of TOML and of UTF-8
        raise ClientAccessUnusable(path, f"it is no TOML: {error}") from error
    entries = document.get("clients")
    if not isinstance(entries, dict) or not entries or set(document) != {"clients"}:
        raise ClientAccessUnusable(path, 'it must hold tables [clients."<name>"], and nothing else')
    clients: dict[str, Principal] = {}
    for name, entry in entries.items():
        if not name:
            raise ClientAccessUnusable(path, "it has a client without a name")
        if _folded(name) in clients:
            raise ClientAccessUnusable(path, f"it has the client {name!r} twice")
        clients[_folded(name)] = _client(path, name, entry)
    return clients


def _client(path: Path, name: str, entry: Any) -> Principal:
    if not isinstance(entry, dict) or set(entry) != _ENTRY_KEYS:
        wanted = ", ".join(sorted(_ENTRY_KEYS))
        raise ClientAccessUnusable(path, f"the client {name!r} must have {wanted}, and no more")
    subject = entry["subject"]
    if not isinstance(subject, str) or not subject:
        raise ClientAccessUnusable(path, f"the client {name!r}: subject must be a text")
    try:
        return principal_of(entry, subject=subject)
    except ClaimInvalid as error:
        raise ClientAccessUnusable(path, f"the client {name!r}: {error}") from error


def _folded(name: str) -> str:
    """DNS names have no case; a URI has."""
    return name if "://" in name else name.lower()
