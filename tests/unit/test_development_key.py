"""The embedded default's own issuer: its files, and tokens that the server accepts."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest

from billing.api.authentication import JwtAuthenticator
from billing.api.signing_keys import KeyFile
from billing.sandbox.development_key import (
    JWKS_FILE,
    KEY_FILE,
    DevelopmentKey,
    DevelopmentKeyUnusable,
    load_or_create_key,
    mint_token,
)


def minted(key: DevelopmentKey) -> str:
    return mint_token(
        key,
        subject="ada",
        tenants=["acme"],
        livemode=False,
        capabilities="*",
        ttl_seconds=60,
    )


async def test_the_server_accepts_its_tokens(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "new" / "data")
    principal = await JwtAuthenticator(KeyFile(key.jwks_file)).authenticate(minted(key))
    assert principal.subject == "ada"
    assert principal.tenants == {"acme"}
    assert principal.has_capability("billing.run:execute")
    assert not principal.livemode


def test_a_token_lasts_as_long_as_asked(tmp_path: Path) -> None:
    token = minted(load_or_create_key(tmp_path))
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] == claims["iat"] + 60
    assert abs(claims["iat"] - time.time()) < 60


def test_the_key_survives_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        first = load_or_create_key(tmp_path)
    finally:
        os.umask(previous)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / JWKS_FILE).stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == [JWKS_FILE, KEY_FILE]
    published = (tmp_path / JWKS_FILE).stat()
    again = load_or_create_key(tmp_path)
    assert again.key_id == first.key_id
    assert again.private_key.private_bytes_raw() == first.private_key.private_bytes_raw()
    assert (tmp_path / JWKS_FILE).stat().st_mtime_ns == published.st_mtime_ns


def test_a_lost_public_half_is_written_again(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path)
    published = key.jwks_file.read_bytes()
    key.jwks_file.unlink()
    load_or_create_key(tmp_path)
    assert key.jwks_file.read_bytes() == published
    assert b'"d"' not in published


def test_all_who_come_at_once_get_the_same_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(load_or_create_key, [tmp_path / "data"] * 8))
    assert len({key.key_id for key in keys}) == 1


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    load_or_create_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o640)
    with pytest.raises(DevelopmentKeyUnusable, match="chmod 600"):
        load_or_create_key(tmp_path)


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).touch(mode=0o600)
    with pytest.raises(DevelopmentKeyUnusable, match="is damaged"):
        load_or_create_key(tmp_path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DevelopmentKeyUnusable, match="cannot be made or read"):
        load_or_create_key(tmp_path / "file" / "data")
