"""Settings: what the environment may say, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from billing.config import SETTINGS, ConfigurationInvalid, Settings, is_loopback, read_settings

MTLS: dict[str, Any] = {
    "mtls_listen_address": "0.0.0.0:50061",
    "tls_client_ca_file": Path("ca"),
    "client_access_file": Path("a"),
}


def test_nothing_set_is_the_embedded_default_on_loopback() -> None:
    settings = read_settings({})
    assert settings == Settings()
    assert settings.uses_development_key
    assert is_loopback(settings.listen_address)
    settings.require_servable()


def test_every_kind_of_setting_is_parsed() -> None:
    settings = read_settings(
        {
            "BILLING_DATABASE_URL": "postgresql://me@db/billing",
            "BILLING_JWKS_URL": "https://issuer.example/jwks.json",
            "BILLING_JWT_AUDIENCE": "billing",
            "BILLING_LISTEN_ADDRESS": "[::1]:1234",
            "BILLING_POOL_SIZE": " 7 ",
            "BILLING_DRAIN_SECONDS": "1.5",
            "BILLING_REFLECTION": "No",
            "BILLING_METRICS_ADDRESS": "",
            "BILLING_OTLP_ENDPOINT": "https://collector:4317",
            "BILLING_LOG_FORMAT": "Console",
            "BILLING_TLS_CERTIFICATE_FILE": "/tls/cert.pem",
            "BILLING_TLS_PRIVATE_KEY_FILE": "/tls/key.pem",
            "BILLING_DATA_DIR": "",
            "HOME": "/root",
            "BILLING_SERVICE_HOST": "10.0.0.1",
            "BILLING_PORT_50051_TCP_ADDR": "10.0.0.1",
        }
    )
    assert settings == Settings(
        database_url="postgresql://me@db/billing",
        jwks_url="https://issuer.example/jwks.json",
        jwt_audience="billing",
        listen_address="[::1]:1234",
        pool_size=7,
        drain_seconds=1.5,
        reflection=False,
        metrics_address=None,
        otlp_endpoint="https://collector:4317",
        log_format="console",
        tls_certificate_file=Path("/tls/cert.pem"),
        tls_private_key_file=Path("/tls/key.pem"),
    )
    assert not settings.uses_development_key


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("BILLING_POOL_SIZE", "many", "a whole number from 1 to 1,000"),
        ("BILLING_POOL_SIZE", "0", "a whole number from 1 to 1,000"),
        ("BILLING_DRAIN_SECONDS", "nan", "a number of seconds from 0.0 to 3,600.0"),
        ("BILLING_REFLECTION", "perhaps", "true or false"),
        ("BILLING_LISTEN_ADDRESS", "localhost", "host:port"),
        ("BILLING_LISTEN_ADDRESS", ":50051", "host:port"),
        ("BILLING_LISTEN_ADDRESS", "::1:50051", "host:port"),
        ("BILLING_LISTEN_ADDRESS", "localhost:99999", "host:port"),
        ("BILLING_LISTEN_ADDRESS", "unix:", "host:port"),
        ("BILLING_METRICS_ADDRESS", "unix:/metrics", "host:port"),
        ("BILLING_DATABASE_URL", "mysql://me:hunter2@db/billing", "postgresql://"),
        ("BILLING_DATABASE_URL", "postgresql://db/b?sslmode=verify-full", "TLS in PGSSLMODE and"),
        ("BILLING_JWKS_URL", "http://issuer.example/jwks.json", "an https:// address"),
        ("BILLING_JWKS_URL", "file:///etc/passwd", "an https:// address"),
        ("BILLING_OTLP_ENDPOINT", "collector:4317", "http://host:port"),
        ("BILLING_OTLP_ENDPOINT", "http://collector", "http://host:port"),
        ("BILLING_OTLP_ENDPOINT", "http://collector:4318/v1/traces", "http://host:port"),
        ("BILLING_LOG_LEVEL", "loud", "one of debug, info, warning, error"),
    ],
)
def test_a_value_that_is_not_understood_names_variable_and_expectation(
    variable: str, value: str, expected: str
) -> None:
    with pytest.raises(ConfigurationInvalid) as refused:
        read_settings({variable: value})
    assert refused.value.variable == variable
    assert "expected" in str(refused.value)
    assert expected in str(refused.value)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_keys_may_come_over_http_on_loopback(host: str) -> None:
    url = f"http://{host}:8080/jwks.json"
    assert read_settings({"BILLING_JWKS_URL": url}).jwks_url == url


def test_a_typo_is_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(ConfigurationInvalid, match="did you mean BILLING_DATABASE_URL"):
        read_settings({"BILLING_DATABSE_URL": "postgresql://db/billing"})


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tls_certificate_file": Path("c")}, "BILLING_TLS_PRIVATE_KEY_FILE"),
        ({"tls_private_key_file": Path("k")}, "BILLING_TLS_CERTIFICATE_FILE"),
        ({"jwks_file": Path("j"), "jwks_url": "https://x/"}, "BILLING_JWKS_URL"),
        ({"client_access_file": Path("a")}, "BILLING_MTLS_LISTEN_ADDRESS is not set"),
        ({**MTLS, "tls_client_ca_file": None}, "BILLING_TLS_CLIENT_CA_FILE is not set"),
        ({**MTLS, "client_access_file": None}, "BILLING_CLIENT_ACCESS_FILE is not set"),
        (MTLS, "BILLING_TLS_CERTIFICATE_FILE is not set"),
        ({"invoicing_tls_certificate_file": Path("c")}, "BILLING_INVOICING_TLS_PRIVATE_KEY_FILE"),
        (
            {
                "invoicing_tls_certificate_file": Path("c"),
                "invoicing_tls_private_key_file": Path("k"),
            },
            "BILLING_INVOICING_TLS_ROOT_CERTIFICATES_FILE is not set",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    settings: dict[str, str | Path], named: str
) -> None:
    with pytest.raises(ConfigurationInvalid, match=named):
        Settings(**settings)  # type: ignore[arg-type]


def test_a_database_of_its_own_needs_an_issuer_to_serve() -> None:
    settings = Settings(database_url="postgresql://db/billing")
    assert not settings.uses_development_key
    with pytest.raises(ConfigurationInvalid, match="BILLING_JWKS_FILE"):
        settings.require_servable()
    Settings(database_url="postgresql://db/billing", jwks_file=Path("jwks.json")).require_servable()


def test_client_certificates_make_a_token_issuer_unnecessary() -> None:
    settings = Settings(
        database_url="postgresql://db/billing",
        **{"tls_certificate_file": Path("c"), "tls_private_key_file": Path("k"), **MTLS},
    )
    assert settings.uses_client_certificates
    assert not settings.has_token_issuer
    assert not settings.uses_development_key
    settings.require_servable()


def test_the_database_url_can_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "database-url"
    path.write_text("postgresql://me:hunter2@db/billing\n")
    environ = {"BILLING_DATABASE_URL_FILE": str(path)}
    settings = read_settings(environ)
    assert settings.database_url == "postgresql://me:hunter2@db/billing"
    assert "hunter2" not in repr(settings)
    with pytest.raises(ConfigurationInvalid, match="BILLING_DATABASE_URL exclude each other"):
        read_settings({**environ, "BILLING_DATABASE_URL": "postgresql://db/billing"})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "cannot be read: it is no text"),
        (b"", "is not understood; expected postgresql://"),
        (b"mysql://me:hunter2@db/billing", "is not understood; expected postgresql://"),
    ],
)
def test_a_file_without_a_database_url_is_refused(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    path = tmp_path / "database-url"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match=problem) as refused:
        read_settings({"BILLING_DATABASE_URL_FILE": str(path)})
    assert refused.value.variable == "BILLING_DATABASE_URL_FILE"
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "billing.example:443"])
def test_plaintext_off_loopback_is_refused_unless_asked_for(address: str) -> None:
    with pytest.raises(ConfigurationInvalid, match="BILLING_ALLOW_PLAINTEXT"):
        Settings(listen_address=address).require_servable()
    Settings(listen_address=address, allow_plaintext=True).require_servable()
    Settings(
        listen_address=address, tls_certificate_file=Path("c"), tls_private_key_file=Path("k")
    ).require_servable()


@pytest.mark.parametrize("address", ["127.8.9.1:1", "localhost:1", "[::1]:1", "unix:/run/b.sock"])
def test_plaintext_on_loopback_is_served(address: str) -> None:
    Settings(listen_address=address).require_servable()


def test_the_table_of_settings_reads_back_as_the_defaults() -> None:
    assert len({setting.variable for setting in SETTINGS}) == len(SETTINGS)
    environ = {}
    for setting in SETTINGS:
        assert setting.meaning.endswith(".")
        if setting.field_name not in ("database_url", "data_dir"):  # described, not literal
            environ[setting.variable] = setting.default
    assert read_settings(environ) == Settings()


def test_secrets_are_not_shown() -> None:
    settings = Settings(database_url="postgresql://me:hunter2@db/billing")
    assert "hunter2" not in repr(settings)
    secret = {setting.field_name for setting in SETTINGS if setting.is_secret}
    assert secret == {"database_url"}
