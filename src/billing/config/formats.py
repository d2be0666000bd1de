"""How the texts of environment variables are read."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Format:
    """How a variable's text is read; ``parse`` raises ValueError."""

    expected: str
    parse: Callable[[str], Any]


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port`` or ``[ipv6]:port``; raises ValueError."""
    host, colon, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = str(ipaddress.IPv6Address(host[1:-1]))
    elif ":" in host:
        raise ValueError(address)
    number = int(port)
    if not colon or not host or not 0 <= number <= 65535:
        raise ValueError(address)
    return host, number


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches ``host:port`` or ``unix:/path``."""
    if address.startswith("unix:"):
        return True
    return _is_loopback_host(split_address(address)[0])


def _is_loopback_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _parse_address(text: str) -> str:
    if not (text.startswith("unix:") and len(text) > len("unix:")):
        split_address(text)
    return text


def _parse_metrics_address(text: str) -> str | None:
    if not text:
        return None
    split_address(text)
    return text


def _parse_otlp_endpoint(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or not url.port:
        raise ValueError(text)
    if url.path not in ("", "/"):  # it would be left out in silence
        raise ValueError(text)
    return text


def _parse_database_url(text: str) -> str:
    url = urlsplit(text)
    # SQLAlchemy and asyncpg each know the words for TLS that the other does not.
    about_tls = any(name.startswith("ssl") for name in parse_qs(url.query))
    if url.scheme not in ("postgresql", "postgres") or about_tls:
        raise ValueError(text)
    return text


def _parse_jwks_url(text: str) -> str:
    url = urlsplit(text)
    local = url.scheme == "http" and _is_loopback_host(url.hostname or "")
    if not (url.hostname and (url.scheme == "https" or local)):
        raise ValueError(text)
    return text


def _parse_flag(text: str) -> bool:
    if text.lower() not in _TRUE | _FALSE:
        raise ValueError(text)
    return text.lower() in _TRUE


def whole_number(low: int, high: int) -> Format:
    def parse(text: str) -> int:
        return _require_between(int(text), low, high)

    return Format(f"a whole number from {low:,} to {high:,}", parse)


def seconds(low: float, high: float) -> Format:
    def parse(text: str) -> float:
        return _require_between(float(text), low, high)

    return Format(f"a number of seconds from {low:,} to {high:,}", parse)


def _require_between(number: Number, low: Number, high: Number) -> Number:
    if not low <= number <= high:
        raise ValueError(number)
    return number


def one_of(*choices: str) -> Format:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(text)
        return text.lower()

    return Format(f"one of {', '.join(choices)}", parse)


TEXT: Final = Format("text", str)
PATH: Final = Format("a path", lambda text: Path(text).expanduser())
FLAG: Final = Format("true or false", _parse_flag)
ADDRESS: Final = Format("host:port, [ipv6]:port or unix:/path", _parse_address)
METRICS_ADDRESS: Final = Format("host:port or [ipv6]:port", _parse_metrics_address)
OTLP_ENDPOINT: Final = Format("http://host:port or https://host:port", _parse_otlp_endpoint)
DATABASE_URL: Final = Format(
    "postgresql://user:password@host:port/database, and TLS in PGSSLMODE and PGSSLROOTCERT",
    _parse_database_url,
)
JWKS_URL: Final = Format("an https:// address (http:// only on loopback)", _parse_jwks_url)
