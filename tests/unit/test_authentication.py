"""Tokens: which ones prove their bearer, and how the others are refused."""

import hmac
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest

from billing.api.authentication import (
    CredentialsExpired,
    CredentialsInvalid,
    CredentialsMissing,
    JwtAuthenticator,
    Principal,
    bearer_token,
)
from billing.api.signing_keys import KeyFile
from tests.factories.tokens import IssuerKey, ec_key, jwks, rsa_key, write_jwks


class FakeClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds


KEY = IssuerKey()


@pytest.fixture
def jwks_file(tmp_path: Path) -> Path:
    return write_jwks(tmp_path / "jwks.json", KEY)


@pytest.fixture
def authenticator(jwks_file: Path) -> JwtAuthenticator:
    return JwtAuthenticator(KeyFile(jwks_file))


def unsigned_token(header: dict[str, Any], signature: str = "") -> str:
    def encoded(part: dict[str, Any]) -> str:
        return jwt.utils.base64url_encode(json.dumps(part).encode()).decode()

    claims = {
        "sub": "eve",
        "tenants": "*",
        "livemode": True,
        "capabilities": "*",
        "exp": int(time.time()) + 60,
    }
    return f"{encoded(header)}.{encoded(claims)}.{signature}"


@pytest.mark.parametrize("key", [KEY, ec_key(), rsa_key()], ids=lambda key: key.alg)
async def test_a_good_token_tells_who_calls(tmp_path: Path, key: IssuerKey) -> None:
    authenticator = JwtAuthenticator(KeyFile(write_jwks(tmp_path / "jwks.json", key)))
    token = key.token(tenants=["acme", "umbrella"], capabilities=["billing.run:read"])
    for _ in range(2):  # the second time it is remembered
        assert await authenticator.authenticate(token) == Principal(
            subject="ada",
            tenants=frozenset({"acme", "umbrella"}),
            livemode=False,
            capabilities=frozenset({"billing.run:read"}),
        )


@pytest.mark.parametrize("everything", ["*", ["*"]])
async def test_a_star_stands_for_all(authenticator: JwtAuthenticator, everything: object) -> None:
    principal = await authenticator.authenticate(
        KEY.token(tenants=everything, capabilities=everything, livemode=True)
    )
    assert principal.covers_tenant("any")
    assert principal.has_capability("billing.run:execute")
    assert principal.livemode


async def test_others_than_the_named_are_not_covered(authenticator: JwtAuthenticator) -> None:
    principal = await authenticator.authenticate(KEY.token(capabilities=[]))
    assert principal.covers_tenant("acme")
    assert not principal.covers_tenant("umbrella")
    assert not principal.covers_tenant("")
    assert not principal.has_capability("billing.run:read")


@pytest.mark.parametrize(
    ("authorization", "error"),
    [
        (None, CredentialsMissing),
        ("", CredentialsMissing),
        ("Basic YTpi", CredentialsInvalid),
        ("Bearer", CredentialsInvalid),
        ("Bearer  ", CredentialsInvalid),
        ("token", CredentialsInvalid),
    ],
)
def test_what_is_no_bearer_token_is_told_what_to_send(
    authorization: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error, match="send metadata `authorization: Bearer <token>`"):
        bearer_token(authorization)


def test_the_scheme_has_no_case() -> None:
    assert bearer_token("bearer a.b.c") == "a.b.c"


async def test_an_expired_token_is_refused_after_a_little_leeway(
    authenticator: JwtAuthenticator,
) -> None:
    now = int(time.time())
    await authenticator.authenticate(KEY.token(exp=now - 10))
    with pytest.raises(CredentialsExpired):
        await authenticator.authenticate(KEY.token(exp=now - 60))


async def test_a_remembered_token_expires_too(jwks_file: Path) -> None:
    clock = FakeClock(time.time())
    authenticator = JwtAuthenticator(KeyFile(jwks_file), now=clock)
    token = KEY.token()
    await authenticator.authenticate(token)
    clock.seconds += 3600 + 31
    with pytest.raises(CredentialsExpired):
        await authenticator.authenticate(token)


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"exp": None}, "claim exp is missing"),
        ({"sub": None}, "claim sub is missing"),
        ({"sub": ""}, "claim sub is empty"),
        ({"tenants": None}, "claim tenants must be"),
        ({"tenants": "acme"}, "claim tenants must be"),
        ({"tenants": ["acme", 7]}, "claim tenants must be"),
        ({"tenants": [""]}, "claim tenants must be"),
        ({"capabilities": None}, "claim capabilities must be"),
        ({"livemode": None}, "claim livemode must be"),
        ({"livemode": "true"}, "claim livemode must be"),
        ({"nbf": int(time.time()) + 600}, "not valid yet"),
        ({"exp": 10**400}, None),
    ],
)
async def test_claims_are_checked(
    authenticator: JwtAuthenticator, claims: dict[str, Any], problem: str | None
) -> None:
    token = KEY.token(**claims)
    if problem is None:
        await authenticator.authenticate(token)
        return
    with pytest.raises(CredentialsInvalid, match=problem):
        await authenticator.authenticate(token)


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"aud": "billing"}, "claim iss is missing"),
        ({"iss": "https://issuer"}, "claim aud is missing"),
        ({"iss": "https://other", "aud": "billing"}, "another issuer"),
        ({"iss": "https://issuer", "aud": ["other"]}, "another audience"),
        ({"iss": "https://issuer", "aud": ["other", "billing"]}, None),
    ],
)
async def test_issuer_and_audience_are_required_where_configured(
    jwks_file: Path, claims: dict[str, Any], problem: str | None
) -> None:
    authenticator = JwtAuthenticator(
        KeyFile(jwks_file), issuer="https://issuer", audience="billing"
    )
    token = KEY.token(**claims)
    if problem is None:
        await authenticator.authenticate(token)
        return
    with pytest.raises(CredentialsInvalid, match=problem):
        await authenticator.authenticate(token)


async def test_another_audience_does_not_matter_where_none_is_configured(
    authenticator: JwtAuthenticator,
) -> None:
    await authenticator.authenticate(KEY.token(aud="someone", iss="anyone"))


async def test_a_forged_signature_is_refused(authenticator: JwtAuthenticator) -> None:
    forger = IssuerKey(KEY.kid)
    with pytest.raises(CredentialsInvalid, match="signature does not match"):
        await authenticator.authenticate(forger.token())


async def test_a_changed_claim_is_refused(authenticator: JwtAuthenticator) -> None:
    head, _, signature = KEY.token().split(".")
    _, claims, _ = IssuerKey().token(tenants="*").split(".")
    with pytest.raises(CredentialsInvalid, match="signature does not match"):
        await authenticator.authenticate(f"{head}.{claims}.{signature}")


@pytest.mark.parametrize("alg", ["none", "HS256", "ES384", None])
async def test_other_algorithms_are_refused(
    authenticator: JwtAuthenticator, alg: str | None
) -> None:
    token = unsigned_token({"alg": alg, "kid": KEY.kid, "typ": "JWT"})
    with pytest.raises(CredentialsInvalid, match=r"EdDSA, ES256, RS256|well-formed"):
        await authenticator.authenticate(token)


async def test_the_public_key_is_no_shared_secret(authenticator: JwtAuthenticator) -> None:
    # The classic confusion: HMAC with the public key, which everyone knows.
    unsigned = unsigned_token({"alg": "HS256", "kid": KEY.kid}).rstrip(".")
    digest = hmac.digest(KEY.public_key_bytes(), unsigned.encode(), "sha256")
    token = f"{unsigned}.{jwt.utils.base64url_encode(digest).decode()}"
    with pytest.raises(CredentialsInvalid, match="alg"):
        await authenticator.authenticate(token)


async def test_the_algorithm_is_that_of_the_key(tmp_path: Path) -> None:
    authenticator = JwtAuthenticator(KeyFile(write_jwks(tmp_path / "jwks.json", rsa_key())))
    with pytest.raises(CredentialsInvalid, match="alg is not that of the key"):
        await authenticator.authenticate(KEY.token())


async def test_a_short_rsa_key_is_refused(tmp_path: Path) -> None:
    weak = rsa_key(bits=1024)
    authenticator = JwtAuthenticator(KeyFile(write_jwks(tmp_path / "jwks.json", weak)))
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = weak.token()
    with pytest.raises(CredentialsInvalid, match="too short"):
        await authenticator.authenticate(token)


@pytest.mark.parametrize(
    "token",
    ["x", "a.b.c", "..", "é.é.é", "[" * 8000, unsigned_token({"alg": "EdDSA", "kid": KEY.kid})],
    ids=["word", "abc", "dots", "not ascii", "deep", "no signature"],
)
async def test_what_is_no_token_is_refused(authenticator: JwtAuthenticator, token: str) -> None:
    with pytest.raises(CredentialsInvalid):
        await authenticator.authenticate(token)


@pytest.mark.parametrize("kid", ["other", ""])
async def test_a_key_that_the_issuer_does_not_have_is_refused(
    authenticator: JwtAuthenticator, kid: str
) -> None:
    with pytest.raises(CredentialsInvalid, match=r"kid|do not contain"):
        await authenticator.authenticate(KEY.token(headers={"kid": kid}))


async def test_a_rotated_key_is_accepted_and_the_withdrawn_one_no_more(jwks_file: Path) -> None:
    clock = FakeClock()
    authenticator = JwtAuthenticator(KeyFile(jwks_file, clock=clock))
    old_token, new_key = KEY.token(), IssuerKey("key-2")
    await authenticator.authenticate(old_token)

    clock.seconds += 10
    write_jwks(jwks_file, KEY, new_key)
    await authenticator.authenticate(new_key.token())
    await authenticator.authenticate(old_token)

    clock.seconds += 10
    write_jwks(jwks_file, new_key)
    with pytest.raises(CredentialsInvalid, match="do not contain"):
        await authenticator.authenticate(old_token)
    await authenticator.authenticate(new_key.token())


async def test_remembered_tokens_are_bounded(
    authenticator: JwtAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.api.authentication._MAX_REMEMBERED_TOKENS", 2)
    for number in range(5):
        await authenticator.authenticate(KEY.token(jti=str(number)))
    assert len(authenticator._verified._tokens) == 2


def test_the_factory_publishes_no_private_key() -> None:
    assert "d" not in jwks(KEY)["keys"][0]
