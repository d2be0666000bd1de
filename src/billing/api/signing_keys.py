"""Where the public keys come from that tokens are verified with."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import jwt
import structlog

from billing.domain.errors import Unavailable

ALGORITHMS: Final = ("EdDSA", "ES256", "RS256")
"""What a token may be signed with: never a shared secret, never nothing."""

_LOOK_SECONDS: Final = 1.0
_RELOAD_SECONDS: Final = 3.0
_FETCH_TIMEOUT_SECONDS: Final = 5.0
_FRESH_SECONDS: Final = 300.0
_USABLE_SECONDS: Final = 3600.0

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class SigningKeysUnusable(Exception):
    """A JWKS document cannot be read or holds no key that we accept."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(f"the keys in {source} cannot be used: {problem}")
        self.source = source


class SigningKeysUnavailable(Unavailable):
    """The issuer's keys cannot be fetched, so a token cannot be told good or bad."""

    def __init__(self) -> None:
        super().__init__("the token issuer's keys cannot be fetched at the moment; try again")


@dataclass(frozen=True, slots=True, eq=False)
class SigningKeys:
    """The keys of one JWKS document by key id. Another document makes another object."""

    by_id: Mapping[str, jwt.PyJWK]


class KeySource(Protocol):
    """Knows the issuer's keys."""

    async def current(self) -> SigningKeys:
        """Return the keys; the same object until they change. Raises SigningKeysUnavailable."""
        ...

    async def renewed(self) -> SigningKeys:
        """Look again, because a token names an unknown key, unless we have just done so.

        Raises SigningKeysUnavailable.
        """
        ...


def parse_signing_keys(document: object, *, source: str) -> SigningKeys:
    """Return the keys of a JWKS that tokens may be signed with; raises SigningKeysUnusable.

    Keys for anything else are left out, as RFC 7517 asks for.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise SigningKeysUnusable(source, 'it is no JSON object with a list of "keys"')
    keys = [key for key in map(_signing_key, entries) if key is not None]
    if not keys:
        expected = ", ".join(ALGORITHMS)
        raise SigningKeysUnusable(source, f'no key has a "kid" and is for one of {expected}')
    return SigningKeys({str(key.key_id): key for key in keys})


def _signing_key(entry: object) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    if not isinstance(entry.get("kid"), str) or not entry["kid"]:
        return None
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):  # it raises all of these
        return None
    return key if key.algorithm_name in ALGORITHMS else None


class KeyFile:
    """A JWKS file, read again when it changes.

    The constructor raises SigningKeysUnusable; later a broken file leaves the keys as they are.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._looked_at = self._reloaded_at = clock()
        self._version = self._version_of_file()
        self._keys = self._load()

    async def current(self) -> SigningKeys:
        """Return the keys; looks at the file at most once a second."""
        if self._clock() - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = self._clock()
            self._reload_if_changed()
        return self._keys

    async def renewed(self) -> SigningKeys:
        """Look at the file now, unless that was done in the last three seconds."""
        if self._clock() - self._reloaded_at >= _RELOAD_SECONDS:
            self._reloaded_at = self._looked_at = self._clock()
            self._reload_if_changed()
        return self._keys

    def _reload_if_changed(self) -> None:
        version = self._version_of_file()
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = self._load()
        except SigningKeysUnusable as error:
            _log.warning("signing_keys_not_reloaded", error=str(error))

    def _version_of_file(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def _load(self) -> SigningKeys:
        try:
            document = json.loads(self._path.read_bytes())
        except OSError as error:
            raise SigningKeysUnusable(str(self._path), error.strerror or str(error)) from error
        except ValueError as error:
            raise SigningKeysUnusable(str(self._path), f"it is no JSON: {error}") from error
        return parse_signing_keys(document, source=str(self._path))


class KeyUrl:
    """A JWKS address, fetched off the event loop.

    Keys are fetched anew after five minutes, in the background, and stay in use for an hour while
    that fails: the issuer's outage is not at once ours.
    """

    def __init__(
        self,
        url: str,
        *,
        fetch: Callable[[], Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``fetch`` returns the parsed document; it runs in a thread and may raise anything."""
        self._url = url
        self._fetch = fetch or _fetcher(url)
        self._clock = clock
        self._keys: SigningKeys | None = None
        self._document: object = None
        self._fetched_at = 0.0
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def current(self) -> SigningKeys:
        """Return the keys, fetched within the hour; raises SigningKeysUnavailable."""
        age_seconds = self._clock() - self._fetched_at
        if self._keys is None or age_seconds >= _USABLE_SECONDS:
            await self._fetch_unless_just_tried()
        elif age_seconds >= _FRESH_SECONDS and not self._just_tried():
            self._start_fetching()
        return self._usable()

    async def renewed(self) -> SigningKeys:
        """Fetch the keys now, unless that was tried in the last three seconds.

        Raises SigningKeysUnavailable if the last try failed: the key may be a new one.
        """
        await self._fetch_unless_just_tried()
        if self._tried_at != self._fetched_at:
            raise SigningKeysUnavailable
        return self._usable()

    def _usable(self) -> SigningKeys:
        if self._keys is None or self._clock() - self._fetched_at >= _USABLE_SECONDS:
            raise SigningKeysUnavailable
        return self._keys

    def _just_tried(self) -> bool:
        return self._tried_at is not None and self._clock() - self._tried_at < _RELOAD_SECONDS

    async def _fetch_unless_just_tried(self) -> None:
        if self._fetching is None and self._just_tried():
            return
        # Shielded: an RPC that is cancelled must not cancel what others wait for.
        await asyncio.shield(self._start_fetching())

    def _start_fetching(self) -> asyncio.Task[None]:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch_keys())
            self._fetching.add_done_callback(self._end_fetching)
        return self._fetching

    def _end_fetching(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch_keys(self) -> None:
        try:
            document = await asyncio.to_thread(self._fetch)
            keys = parse_signing_keys(document, source=self._url)
        except Exception as error:  # noqa: BLE001 - whatever it is, the keys we have stay
            self._tried_at = self._clock()
            _log.warning("signing_keys_not_fetched", url=self._url, error=str(error))
            return
        self._tried_at = self._fetched_at = self._clock()
        if document != self._document:
            self._document, self._keys = document, keys


def _fetcher(url: str) -> Callable[[], Any]:
    client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=_FETCH_TIMEOUT_SECONDS)
    return client.fetch_data
