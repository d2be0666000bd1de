"""The way to the service: TLS off this machine, and where the token comes from."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from billing.caller import connection
from billing.caller.connection import open_channel, token_reader
from billing.caller.errors import OptionsInvalid


class Opened:
    """Remembers how a channel was opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kind = ""
        self.options: dict[str, Any] = {}
        self.roots: bytes | None = None

        def insecure(address: str, options: Any) -> None:
            self.kind, self.options = "plaintext", dict(options)

        def secure(address: str, credentials: Any, options: Any) -> None:
            self.kind, self.options = "tls", dict(options)

        def credentials(roots: bytes | None = None) -> object:
            self.roots = roots
            return object()

        monkeypatch.setattr(grpc, "insecure_channel", insecure)
        monkeypatch.setattr(grpc, "secure_channel", secure)
        monkeypatch.setattr(grpc, "ssl_channel_credentials", credentials)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    return Opened(monkeypatch)


@pytest.mark.parametrize(
    ("address", "tls", "kind"),
    [
        ("127.0.0.1:50051", None, "plaintext"),
        ("[::1]:50051", None, "plaintext"),
        ("localhost:50051", None, "plaintext"),
        ("unix:/run/billing.sock", None, "plaintext"),
        ("billing.internal:443", None, "tls"),
        ("10.0.0.1:50051", None, "tls"),
        ("10.0.0.1:50051", False, "plaintext"),
        ("127.0.0.1:50051", True, "tls"),
    ],
)
def test_plaintext_is_for_this_machine_unless_asked_for(
    opened: Opened, address: str, tls: bool | None, kind: str
) -> None:
    open_channel(address, tls=tls)
    assert opened.kind == kind


def test_no_proxy_stands_before_this_machine(opened: Opened) -> None:
    open_channel("127.0.0.1:50051")
    assert opened.options["grpc.enable_http_proxy"] == 0
    open_channel("billing.internal:443")
    assert "grpc.enable_http_proxy" not in opened.options


def test_root_certificates_mean_tls(opened: Opened, tmp_path: Path) -> None:
    roots = tmp_path / "ca.pem"
    roots.write_bytes(b"PEM")
    open_channel("127.0.0.1:50051", root_certificates=roots)
    assert (opened.kind, opened.roots) == ("tls", b"PEM")
    with pytest.raises(OptionsInvalid, match="not for --plaintext"):
        open_channel("127.0.0.1:50051", tls=False, root_certificates=roots)
    with pytest.raises(OptionsInvalid, match="No such file"):
        open_channel("127.0.0.1:50051", root_certificates=tmp_path / "none")


@pytest.mark.parametrize("address", ["", "localhost", "http://localhost:1", "host:port"])
def test_an_address_has_host_and_port(address: str) -> None:
    with pytest.raises(OptionsInvalid, match="--address"):
        open_channel(address)


def test_a_real_channel_opens_without_a_service() -> None:
    with open_channel("127.0.0.1:1") as channel:
        assert isinstance(channel, grpc.Channel)


def test_the_token_is_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILLING_TOKEN", " abc\n")
    assert token_reader(None)() == "abc"
    for text in ("", "ü", "a\x00b"):
        with pytest.raises(OptionsInvalid, match="BILLING_TOKEN"):
            connection._checked(text, "set BILLING_TOKEN")
    monkeypatch.delenv("BILLING_TOKEN")
    with pytest.raises(OptionsInvalid, match="BILLING_TOKEN"):
        token_reader(None)


def test_a_token_file_is_read_anew_at_each_call(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one\n")
    read_token = token_reader(file)
    file.write_text("two\n")
    assert read_token() == "two"


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"a\nb"])
def test_a_token_file_without_a_token_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(OptionsInvalid, match="token: --token-file"):
        token_reader(file)
    with pytest.raises(OptionsInvalid, match="No such file"):
        token_reader(tmp_path / "none")
