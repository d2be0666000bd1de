"""Where keys come from: a file that is replaced, an address that may not answer."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from billing.api.signing_keys import (
    KeyFile,
    KeyUrl,
    SigningKeysUnavailable,
    SigningKeysUnusable,
    parse_signing_keys,
)
from tests.factories.tokens import IssuerKey, jwks, rsa_key, write_jwks

URL = "https://issuer.example/jwks.json"
OLD, NEW = IssuerKey("old"), IssuerKey("new")


class FakeClock:
    """A clock that stands still until it is told otherwise."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class FakeIssuer:
    """Publishes keys at an address, or does not answer."""

    def __init__(self, *keys: IssuerKey) -> None:
        self.document: Any = jwks(*keys)
        self.fetched_count = 0

    def __call__(self) -> Any:
        self.fetched_count += 1
        if self.document is None:
            raise ConnectionRefusedError("nobody listens")
        return self.document


def test_only_keys_that_tokens_may_be_signed_with_are_taken() -> None:
    document = {
        "keys": [
            OLD.jwk(),
            {**rsa_key("for encryption").jwk(), "use": "enc"},
            {"kty": "oct", "k": "c2VjcmV0", "kid": "shared secret"},
            {key: value for key, value in NEW.jwk().items() if key != "kid"},
            {"kty": "unheard of", "kid": "strange"},
            "no key at all",
        ]
    }
    assert set(parse_signing_keys(document, source="test").by_id) == {"old"}


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", "{}", '{"keys": []}', '{"keys": 7}', '{"keys": [{"kty": "oct"}]}'],
)
def test_a_file_without_keys_is_refused_at_the_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SigningKeysUnusable, match=str(path)):
        KeyFile(path)


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    clock = FakeClock()
    path = write_jwks(tmp_path / "jwks.json", OLD)
    source = KeyFile(path, clock=clock)
    first = await source.current()
    write_jwks(path, NEW)
    assert await source.current() is first  # looked at just now
    clock.seconds += 1.0
    second = await source.current()
    assert set(second.by_id) == {"new"}
    clock.seconds += 1.0
    assert await source.current() is second


async def test_a_broken_file_leaves_the_keys_as_they_are(tmp_path: Path) -> None:
    clock = FakeClock()
    path = write_jwks(tmp_path / "jwks.json", OLD)
    source = KeyFile(path, clock=clock)
    for spoil in (lambda: path.write_text("{"), path.unlink):
        spoil()
        clock.seconds += 1.0
        assert set((await source.current()).by_id) == {"old"}
    write_jwks(path, NEW)
    clock.seconds += 1.0
    assert set((await source.current()).by_id) == {"new"}


async def test_an_unknown_key_looks_at_the_file_once_in_a_while(tmp_path: Path) -> None:
    clock = FakeClock()
    path = write_jwks(tmp_path / "jwks.json", OLD)
    source = KeyFile(path, clock=clock)
    clock.seconds += 3.0
    write_jwks(path, OLD, NEW)
    assert set((await source.renewed()).by_id) == {"old", "new"}
    write_jwks(path, NEW)
    assert set((await source.renewed()).by_id) == {"old", "new"}


def key_url(issuer: Callable[[], Any], clock: FakeClock) -> KeyUrl:
    return KeyUrl(URL, fetch=issuer, clock=clock)


async def test_keys_are_fetched_once() -> None:
    issuer, clock = FakeIssuer(OLD), FakeClock()
    source = key_url(issuer, clock)
    first = await source.current()
    clock.seconds += 299
    assert await source.current() is first
    assert issuer.fetched_count == 1


async def test_keys_are_renewed_in_the_background_and_stay_the_same_object() -> None:
    issuer, clock = FakeIssuer(OLD), FakeClock()
    source = key_url(issuer, clock)
    first = await source.current()
    clock.seconds += 301
    assert await source.current() is first
    assert source._fetching is not None
    await source._fetching
    assert issuer.fetched_count == 2
    assert await source.current() is first

    issuer.document = jwks(NEW)
    clock.seconds += 301
    await source.current()
    assert source._fetching is not None
    await source._fetching
    assert set((await source.current()).by_id) == {"new"}


async def test_an_issuer_that_never_answered_is_unavailable_and_not_asked_all_the_time() -> None:
    issuer, clock = FakeIssuer(), FakeClock()
    issuer.document = None
    source = key_url(issuer, clock)
    for _ in range(3):
        with pytest.raises(SigningKeysUnavailable):
            await source.current()
    assert issuer.fetched_count == 1
    issuer.document = jwks(OLD)
    clock.seconds += 3
    assert set((await source.current()).by_id) == {"old"}


async def test_an_outage_of_the_issuer_is_not_at_once_ours() -> None:
    issuer, clock = FakeIssuer(OLD), FakeClock()
    source = key_url(issuer, clock)
    first = await source.current()
    issuer.document = None
    clock.seconds += 3599
    assert await source.current() is first
    assert source._fetching is not None
    await source._fetching
    clock.seconds += 10
    with pytest.raises(SigningKeysUnavailable):
        await source.current()


async def test_an_unknown_key_is_asked_for_once_in_a_while() -> None:
    issuer, clock = FakeIssuer(OLD), FakeClock()
    source = key_url(issuer, clock)
    await source.current()
    issuer.document = jwks(OLD, NEW)
    assert set((await source.renewed()).by_id) == {"old"}  # fetched just now
    clock.seconds += 3
    assert set((await source.renewed()).by_id) == {"old", "new"}
    assert issuer.fetched_count == 2


async def test_an_unknown_key_cannot_be_judged_while_the_issuer_is_down() -> None:
    issuer, clock = FakeIssuer(OLD), FakeClock()
    source = key_url(issuer, clock)
    await source.current()
    issuer.document = None
    clock.seconds += 3
    for _ in range(2):
        with pytest.raises(SigningKeysUnavailable):
            await source.renewed()
    assert set((await source.current()).by_id) == {"old"}


class JwksHandler(BaseHTTPRequestHandler):
    """Publishes the keys of OLD."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(jwks(OLD)).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Keep stderr for failures."""


async def test_keys_come_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    clock = FakeClock()
    with ThreadingHTTPServer(("127.0.0.1", 0), JwksHandler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        source = KeyUrl(f"http://127.0.0.1:{server.server_port}/jwks.json", clock=clock)
        assert set((await source.current()).by_id) == {"old"}
        server.shutdown()
        thread.join()
    clock.seconds += 3
    with pytest.raises(SigningKeysUnavailable):
        await source.renewed()


async def test_an_answer_that_is_no_jwks_counts_as_none() -> None:
    issuer = FakeIssuer()
    issuer.document = json.loads("[]")
    with pytest.raises(SigningKeysUnavailable):
        await key_url(issuer, FakeClock()).current()
