"""A token issuer: keys, their JWKS, and tokens signed with them."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey


def _ed25519_key() -> PrivateKey:
    return Ed25519PrivateKey.generate()


@dataclass(frozen=True)
class IssuerKey:
    """One key of an issuer."""

    kid: str = "key-1"
    alg: str = "EdDSA"
    private_key: PrivateKey = field(default_factory=_ed25519_key)

    def jwk(self) -> dict[str, Any]:
        """The public key, as the issuer publishes it."""
        public_key: Any = self.private_key.public_key()
        maker: Any = {"EdDSA": OKPAlgorithm, "ES256": ECAlgorithm, "RS256": RSAAlgorithm}[self.alg]
        return {
            **maker.to_jwk(public_key, as_dict=True),
            "kid": self.kid,
            "alg": self.alg,
            "use": "sig",
        }

    def public_key_bytes(self) -> bytes:
        """The public key as a PEM file."""
        return self.private_key.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def token(self, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token with usual claims but for those given; a claim of None is left out."""
        usual = {
            "sub": "ada",
            "tenants": ["acme"],
            "livemode": False,
            "capabilities": "*",
            "exp": int(time.time()) + 3600,
        }
        named = {name: value for name, value in {**usual, **claims}.items() if value is not None}
        return jwt.encode(
            named,
            self.private_key,
            algorithm=self.alg,
            headers={"kid": self.kid, **(headers or {})},
        )


def ec_key(kid: str = "key-1") -> IssuerKey:
    """A key for ES256."""
    return IssuerKey(kid, "ES256", generate_ec_key(SECP256R1()))


def rsa_key(kid: str = "key-1", *, bits: int = 2048) -> IssuerKey:
    """A key for RS256."""
    return IssuerKey(kid, "RS256", generate_rsa_key(65537, bits))


def jwks(*keys: IssuerKey) -> dict[str, Any]:
    """The document that publishes the keys."""
    return {"keys": [key.jwk() for key in keys]}


def write_jwks(path: Path, *keys: IssuerKey) -> Path:
    """Publish the keys in a file, as an issuer does that replaces it atomically."""
    beside = path.with_suffix(".new")
    beside.write_text(json.dumps(jwks(*keys)))
    return beside.rename(path)
