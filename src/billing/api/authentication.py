"""Who calls: bearer tokens (JWT) and what they say of their bearer."""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import jwt

from billing.api.signing_keys import ALGORITHMS, KeySource, SigningKeys
from billing.domain.errors import BillingError

ALL: Final = "*"
"""Stands for every tenant, or every capability."""

_LEEWAY_SECONDS: Final = 30
_MAX_REMEMBERED_TOKENS: Final = 4096
_HOW_TO: Final = "send metadata `authorization: Bearer <token>`"


class CredentialsRefused(BillingError):
    """Family: the caller is not known."""


class CredentialsMissing(CredentialsRefused):
    """The call carries no token."""

    def __init__(self) -> None:
        super().__init__(f"the call has no credentials; {_HOW_TO}")


class CredentialsExpired(CredentialsRefused):
    """The token was good once."""

    def __init__(self) -> None:
        super().__init__("the token has expired; get a new one from its issuer")


class CredentialsInvalid(CredentialsRefused):
    """The token proves nothing."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"the token is not accepted: {problem}")


class ClaimInvalid(ValueError):
    """What is said of a caller cannot be meant; the text names the claim."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A verified caller: who it is, and what it may do, in live or in test data."""

    subject: str
    tenants: frozenset[str]
    livemode: bool
    capabilities: frozenset[str]

    def covers_tenant(self, tenant_id: str) -> bool:
        """Whether the caller may touch the tenant's data."""
        return tenant_id in self.tenants or ALL in self.tenants

    def has_capability(self, capability: str) -> bool:
        """Whether the caller may call RPCs that require the capability."""
        return capability in self.capabilities or ALL in self.capabilities


class Authenticator(Protocol):
    """Tells who bears a token."""

    async def authenticate(self, token: str) -> Principal:
        """Return the bearer; raises CredentialsRefused, or Unavailable if it cannot tell."""
        ...


def bearer_token(authorization: str | None) -> str:
    """Return the token in an authorization header; raises CredentialsRefused."""
    if not authorization:
        raise CredentialsMissing
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise CredentialsInvalid(f"it is no bearer token; {_HOW_TO}")
    return token.strip()


class NoTokenIssuer:
    """Refuses every token: callers prove themselves with client certificates alone."""

    async def authenticate(self, token: str) -> Principal:
        """Raise CredentialsInvalid."""
        raise CredentialsInvalid(
            "this service has no token issuer; present a client certificate at its mTLS address"
        )


class JwtAuthenticator:
    """Verifies JWTs against the issuer's keys.

    Claims: ``sub``, ``exp``, ``tenants`` and ``capabilities`` (lists, or "*" for all) and
    ``livemode`` (a boolean); ``nbf`` is respected; ``iss`` and ``aud`` are required where they are
    configured.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``now`` returns seconds since the epoch."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._now = now
        self._verified = _VerifiedTokens()

    async def authenticate(self, token: str) -> Principal:
        """Return the bearer; raises CredentialsRefused and SigningKeysUnavailable."""
        keys = await self._keys.current()
        digest = hashlib.sha256(token.encode()).digest()
        verified = self._verified.find(keys, digest)
        if verified is None:
            key_id = _key_id(token)
            if key_id not in keys.by_id:
                keys = await self._keys.renewed()
            if key_id not in keys.by_id:
                raise CredentialsInvalid("its issuer's keys do not contain the one it names")
            verified = self._verify(token, keys.by_id[key_id])
            self._verified.remember(keys, digest, verified)
        if self._now() >= verified.expires_at + _LEEWAY_SECONDS:
            raise CredentialsExpired
        return verified.principal

    def _verify(self, token: str, key: jwt.PyJWK) -> "_VerifiedToken":
        configured = {"iss": self._issuer, "aud": self._audience}
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                issuer=self._issuer,
                audience=self._audience,
                leeway=_LEEWAY_SECONDS,
                options={
                    "require": ["exp", "sub", *(name for name in configured if configured[name])],
                    "verify_aud": self._audience is not None,
                    "enforce_minimum_key_length": True,
                },
            )
        except jwt.ExpiredSignatureError as error:
            raise CredentialsExpired from error
        except jwt.PyJWTError as error:
            raise CredentialsInvalid(_problem_of(error)) from error
        if not claims["sub"]:
            raise CredentialsInvalid("its claim sub is empty")
        try:
            principal = principal_of(claims, subject=claims["sub"])
        except ClaimInvalid as error:
            raise CredentialsInvalid(f"its {error}") from error
        return _VerifiedToken(principal, int(claims["exp"]))


@dataclass(frozen=True, slots=True)
class _VerifiedToken:
    principal: Principal
    expires_at: int


class _VerifiedTokens:
    """Remembers tokens by digest, because a signature costs more than the rest of a small RPC.

    What was verified with other keys than the present ones is forgotten: a key that its issuer
    withdrew must not live on here.
    """

    def __init__(self) -> None:
        self._keys: SigningKeys | None = None
        self._tokens: OrderedDict[bytes, _VerifiedToken] = OrderedDict()

    def find(self, keys: SigningKeys, digest: bytes) -> _VerifiedToken | None:
        if keys is not self._keys:
            return None
        verified = self._tokens.get(digest)
        if verified is not None:
            self._tokens.move_to_end(digest)
        return verified

    def remember(self, keys: SigningKeys, digest: bytes, verified: _VerifiedToken) -> None:
        if keys is not self._keys:
            self._keys = keys
            self._tokens.clear()
        self._tokens[digest] = verified
        if len(self._tokens) > _MAX_REMEMBERED_TOKENS:
            self._tokens.popitem(last=False)


def _key_id(token: str) -> str:
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, RecursionError) as error:
        raise CredentialsInvalid("it is no well-formed JWT") from error
    if header.get("alg") not in ALGORITHMS:
        raise CredentialsInvalid(f"its alg is not one of {', '.join(ALGORITHMS)}")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise CredentialsInvalid("its header has no kid, the id of the key it is signed with")
    return key_id


def _problem_of(error: jwt.PyJWTError) -> str:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"its claim {error.claim} is missing"
    problems: tuple[tuple[type[jwt.PyJWTError], str], ...] = (
        (jwt.InvalidSignatureError, "its signature does not match"),
        (jwt.InvalidAlgorithmError, "its alg is not that of the key it names"),
        (jwt.InvalidKeyError, "the key it names is too short"),
        (jwt.ImmatureSignatureError, "it is not valid yet"),
        (jwt.InvalidIssuerError, "its iss names another issuer"),
        (jwt.InvalidAudienceError, "its aud names another audience"),
    )
    for kind, problem in problems:
        if isinstance(error, kind):
            return problem
    return "it is no well-formed JWT"


def principal_of(claims: Mapping[str, Any], *, subject: str) -> Principal:
    """Return what the claims allow the subject; raises ClaimInvalid."""
    livemode = claims.get("livemode")
    if not isinstance(livemode, bool):
        raise ClaimInvalid("claim livemode must be true or false")
    return Principal(
        subject=subject,
        tenants=_names_in(claims, "tenants"),
        livemode=livemode,
        capabilities=_names_in(claims, "capabilities"),
    )


def _names_in(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    names = claims.get(claim)
    if names == ALL:
        return frozenset({ALL})
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise ClaimInvalid(f'claim {claim} must be a list of names, or "*" for all')
    return frozenset(names)
