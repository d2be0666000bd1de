"""The embedded default's own token issuer: a key in the data directory, made at the first start.

    development-key.pem     the private key (Ed25519), readable by its owner alone
    development-jwks.json   the public one, as the server reads it

Whoever reads the private key can mint tokens for everything, so it is for one machine's own use.
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

KEY_FILE: Final = "development-key.pem"
JWKS_FILE: Final = "development-jwks.json"

_ALGORITHM: Final = "EdDSA"
_KEY_ID_CHARACTERS: Final = 16


class DevelopmentKeyUnusable(Exception):
    """The key cannot be read, or others can; the text says what to do about it."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"the development key {path} {problem}")
        self.path = path


@dataclass(frozen=True, slots=True)
class DevelopmentKey:
    """The private key, and where its public half is for the server to read."""

    private_key: Ed25519PrivateKey
    key_id: str
    jwks_file: Path


def load_or_create_key(data_dir: Path) -> DevelopmentKey:
    """Return the key in the directory; makes both where they are missing.

    Two processes that come at the same time get the same key. Raises DevelopmentKeyUnusable.
    """
    path = data_dir / KEY_FILE
    try:
        _make_directory(data_dir)
        if not path.exists():
            _publish_once(path, _new_key_pem(), mode=0o600)
        private_key = _load(path)
        key_id, jwks = _jwks_of(private_key)
        _replace(data_dir / JWKS_FILE, jwks, mode=0o644)
    except OSError as error:
        raise DevelopmentKeyUnusable(path, f"cannot be made or read: {error.strerror}") from error
    return DevelopmentKey(private_key, key_id, data_dir / JWKS_FILE)


def mint_token(
    key: DevelopmentKey,
    *,
    subject: str,
    tenants: Sequence[str] | Literal["*"],
    livemode: bool,
    capabilities: Sequence[str] | Literal["*"],
    ttl_seconds: int,
) -> str:
    """Return a signed token; "*" stands for all tenants or capabilities."""
    issued_at = int(time.time())
    claims = {
        "sub": subject,
        "tenants": tenants if tenants == "*" else list(tenants),
        "livemode": livemode,
        "capabilities": capabilities if capabilities == "*" else list(capabilities),
        "iat": issued_at,
        "exp": issued_at + ttl_seconds,
    }
    return jwt.encode(claims, key.private_key, algorithm=_ALGORITHM, headers={"kid": key.key_id})


def _make_directory(data_dir: Path) -> None:
    """Like the embedded server's own: another user, who runs PostgreSQL for root, may enter."""
    missing = [path for path in (data_dir, *data_dir.parents) if not path.exists()]
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)


def _new_key_pem() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _load(path: Path) -> Ed25519PrivateKey:
    if path.stat().st_mode & 0o077:
        raise DevelopmentKeyUnusable(path, f"can be read by others: run `chmod 600 {path}`")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise DevelopmentKeyUnusable(
            path, "is damaged: remove it, and a new one is made"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise DevelopmentKeyUnusable(path, "is no Ed25519 key: remove it, and a new one is made")
    return key


def _jwks_of(private_key: Ed25519PrivateKey) -> tuple[str, bytes]:
    public_key = private_key.public_key()
    digest = hashlib.sha256(public_key.public_bytes_raw()).hexdigest()
    key_id = f"development-{digest[:_KEY_ID_CHARACTERS]}"
    key = OKPAlgorithm.to_jwk(public_key, as_dict=True)
    key.update({"kid": key_id, "alg": _ALGORITHM, "use": "sig"})
    return key_id, json.dumps({"keys": [key]}, indent=2).encode() + b"\n"


def _publish_once(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that is complete when it appears, unless another process was faster."""
    written = _write_beside(path, content, mode=mode)
    try:
        os.link(written, path)
    except FileExistsError:
        pass
    finally:
        written.unlink()


def _replace(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file that readers see either as it was or complete, unless it is the same."""
    if not path.exists() or path.read_bytes() != content:
        _write_beside(path, content, mode=mode).rename(path)


def _write_beside(path: Path, content: bytes, *, mode: int) -> Path:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    beside.chmod(mode)  # whatever the umask
    return beside
