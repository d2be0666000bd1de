"""The file of clients: what it may say, and what a certificate's names find in it."""

from pathlib import Path

import pytest

from billing.api.client_access import (
    ClientAccessFile,
    ClientAccessUnusable,
    ClientCertificateUnknown,
    names_in_certificate,
)

ENTRY = """
subject = "gateway"
tenants = ["acme"]
livemode = true
capabilities = ["billing.usage:write"]
"""
VERIFIED = {"transport_security_type": [b"ssl"], "x509_pem_cert": [b"..."]}


def access(directory: Path, text: str) -> ClientAccessFile:
    path = directory / "clients.toml"
    path.write_text(text)
    return ClientAccessFile(path)


def test_an_entry_tells_what_a_token_would(tmp_path: Path) -> None:
    principal = access(tmp_path, f'[clients."gateway.internal"]{ENTRY}').principal_named(
        ["gateway.internal"]
    )
    assert principal.subject == "gateway"
    assert principal.livemode
    assert principal.covers_tenant("acme")
    assert not principal.covers_tenant("umbrella")
    assert principal.has_capability("billing.usage:write")
    assert not principal.has_capability("billing.run:execute")


def test_names_have_no_case_but_uris_do(tmp_path: Path) -> None:
    clients = access(
        tmp_path, f'[clients."Gateway.Internal"]{ENTRY}[clients."spiffe://A/b"]{ENTRY}'
    )
    clients.principal_named(["gateway.INTERNAL"])
    clients.principal_named(["spiffe://A/b"])
    with pytest.raises(ClientCertificateUnknown):
        clients.principal_named(["spiffe://a/b"])


def test_two_names_of_one_client_are_no_contradiction(tmp_path: Path) -> None:
    clients = access(tmp_path, f"[clients.a]{ENTRY}[clients.b]{ENTRY}")
    assert clients.principal_named(["a", "b"]).subject == "gateway"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", r'must hold tables \[clients\."<name>"\]'),
        ("clients = 7", "must hold tables"),
        ("[clients]", "must hold tables"),
        (f"version = 1\n[clients.a]{ENTRY}", "and nothing else"),
        ("[clients", "it is no TOML: Expected"),
        ("[clients]\na = 1", "client 'a' must have capabilities, livemode, subject, tenants"),
        ('[clients.a]\nsubject = "x"', "client 'a' must have"),
        (f'[clients.a]{ENTRY}capabilitys = "*"', "client 'a' must have .* no more"),
        (f"[clients.a]{ENTRY}".replace('"gateway"', '""'), "subject must be a text"),
        (f"[clients.a]{ENTRY}".replace('"gateway"', "1"), "subject must be a text"),
        (f"[clients.a]{ENTRY}".replace("true", '"true"'), "client 'a': claim livemode must be"),
        (f"[clients.a]{ENTRY}".replace('["acme"]', '"acme"'), "client 'a': claim tenants must"),
        (f"[clients.a]{ENTRY}".replace('["acme"]', "[1]"), "client 'a': claim tenants must"),
        (f"[clients.a]{ENTRY}[clients.A]{ENTRY}", "the client 'A' twice"),
        (f'[clients.""]{ENTRY}', "a client without a name"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_with_the_reason(
    tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(ClientAccessUnusable, match=problem) as refused:
        access(tmp_path, text)
    assert str(tmp_path / "clients.toml") in str(refused.value)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClientAccessUnusable, match="No such file"):
        ClientAccessFile(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ClientAccessUnusable, match="it is no TOML"):
        ClientAccessFile(tmp_path / "binary.toml")


def test_a_change_counts_within_a_second_and_a_broken_one_never(tmp_path: Path) -> None:
    seconds = 0.0
    path = tmp_path / "clients.toml"
    path.write_text(f"[clients.a]{ENTRY}")
    clients = ClientAccessFile(path, clock=lambda: seconds)

    path.write_text(f"[clients.bb]{ENTRY}")
    clients.principal_named(["a"])  # looked at less than a second ago
    seconds += 1.0
    clients.principal_named(["bb"])

    for broken in ("[clients", None):
        if broken is None:
            path.unlink()
        else:
            path.write_text(broken)
        seconds += 1.0
        clients.principal_named(["bb"])


def test_alternative_names_come_before_the_common_name() -> None:
    assert names_in_certificate(
        VERIFIED
        | {"peer_dns": [b"a", b"b"], "peer_uri": [b"spiffe://c"], "x509_common_name": [b"cn"]}
    ) == ("a", "b", "spiffe://c")
    assert names_in_certificate(VERIFIED | {"x509_common_name": [b"cn"]}) == ("cn",)
    assert names_in_certificate(VERIFIED) == ()


@pytest.mark.parametrize(
    "auth_context",
    [
        {},
        {"transport_security_type": [b"ssl"]},
        {"transport_security_type": [b"ssl"], "x509_common_name": [b"cn"]},
        {"transport_security_type": [b"insecure"], "x509_pem_cert": [b"..."]},
    ],
)
def test_a_peer_without_a_verified_certificate_has_no_names(
    auth_context: dict[str, list[bytes]],
) -> None:
    assert names_in_certificate(auth_context) is None
