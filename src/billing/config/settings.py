"""Settings of the service, parsed once from environment variables ``BILLING_*``."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from billing.config.formats import (
    ADDRESS,
    DATABASE_URL,
    FLAG,
    JWKS_URL,
    METRICS_ADDRESS,
    OTLP_ENDPOINT,
    PATH,
    TEXT,
    Format,
    is_loopback,
    one_of,
    seconds,
    whole_number,
)

PREFIX: Final = "BILLING_"

_NEAR_MISS: Final = 0.9
_MIB: Final = 1024 * 1024


class ConfigurationInvalid(Exception):
    """A setting cannot be used; the text names the variable and what is expected."""

    def __init__(self, variable: str, problem: str) -> None:
        super().__init__(f"{variable} {problem}")
        self.variable = variable
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Setting:
    """One environment variable: what documentation and ``billing config`` tell about it."""

    variable: str
    default: str
    meaning: str
    field_name: str
    is_secret: bool


def _described(
    meaning: str, form: Format, *, default_text: str | None = None, is_secret: bool = False
) -> dict[str, Any]:
    return {
        "meaning": meaning,
        "form": form,
        "default_text": default_text,
        "is_secret": is_secret,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set; each field is the variable ``BILLING_<FIELD>``."""

    database_url: str | None = field(
        default=None,
        repr=False,
        metadata=_described(
            "The PostgreSQL database, migrated by `billing migrate`. Without one `billing serve` "
            "starts an embedded server in the data directory.",
            DATABASE_URL,
            default_text="embedded",
            is_secret=True,
        ),
    )
    database_url_file: Path | None = field(
        default=None,
        metadata=_described(
            "A file that holds the database URL, where secrets come as files.", PATH
        ),
    )
    data_dir: Path | None = field(
        default=None,
        metadata=_described(
            "Where the embedded default keeps its database and its token key.",
            PATH,
            default_text="~/.local/share/billing-service; for root /var/lib/billing-service",
        ),
    )
    pool_size: int = field(
        default=10,
        metadata=_described("Database connections of a process.", whole_number(1, 1000)),
    )
    listen_address: str = field(
        default="127.0.0.1:50051",
        metadata=_described("Where gRPC is served: host:port or unix:/path.", ADDRESS),
    )
    tls_certificate_file: Path | None = field(
        default=None,
        metadata=_described(
            "Certificate chain of the gRPC server (PEM); read again when it changes.", PATH
        ),
    )
    tls_private_key_file: Path | None = field(
        default=None, metadata=_described("Its private key (PEM).", PATH)
    )
    mtls_listen_address: str | None = field(
        default=None,
        metadata=_described(
            "Where gRPC is served to callers with a client certificate, who need no token.",
            ADDRESS,
        ),
    )
    tls_client_ca_file: Path | None = field(
        default=None,
        metadata=_described("The authorities that issue client certificates (PEM).", PATH),
    )
    client_access_file: Path | None = field(
        default=None,
        metadata=_described(
            "What the bearer of each client certificate may do (TOML); read again when it changes.",
            PATH,
        ),
    )
    allow_plaintext: bool = field(
        default=False,
        metadata=_described(
            "Serve without TLS off loopback: only behind something that encrypts.", FLAG
        ),
    )
    jwks_file: Path | None = field(
        default=None,
        metadata=_described(
            "Public keys of the token issuer (JWKS); read again when the file changes. "
            "The embedded default makes its own.",
            PATH,
        ),
    )
    jwks_url: str | None = field(
        default=None,
        metadata=_described("The same, fetched and kept for five minutes.", JWKS_URL),
    )
    jwt_issuer: str | None = field(
        default=None, metadata=_described("The `iss` that tokens must have.", TEXT)
    )
    jwt_audience: str | None = field(
        default=None, metadata=_described("The `aud` that tokens must have.", TEXT)
    )
    reflection: bool = field(
        default=True,
        metadata=_described("Tell anyone the API's schema (gRPC reflection).", FLAG),
    )
    max_concurrent_rpcs: int = field(
        default=1000,
        metadata=_described("RPCs at a time; more are refused.", whole_number(1, 1_000_000)),
    )
    max_message_bytes: int = field(
        default=4 * _MIB,
        metadata=_described("The largest request.", whole_number(1024, 256 * _MIB)),
    )
    drain_seconds: float = field(
        default=20.0,
        metadata=_described("How long running RPCs may go on after SIGTERM.", seconds(0.0, 3600.0)),
    )
    run_worker: bool = field(
        default=True,
        metadata=_described("`billing serve` also works on billing runs.", FLAG),
    )
    worker_heartbeat_timeout_seconds: float = field(
        default=30.0,
        metadata=_described(
            "How long a worker may be silent until others take over what it had taken.",
            seconds(1.0, 3600.0),
        ),
    )
    batch_size: int = field(
        default=500,
        metadata=_described("Subscriptions billed in one transaction.", whole_number(1, 5000)),
    )
    invoicing_address: str = field(
        default="127.0.0.1:50052",
        metadata=_described("The invoicing service.", ADDRESS),
    )
    invoicing_tls_root_certificates_file: Path | None = field(
        default=None,
        metadata=_described(
            "The authorities of the invoicing service's certificate (PEM); without it, no TLS.",
            PATH,
        ),
    )
    invoicing_tls_certificate_file: Path | None = field(
        default=None,
        metadata=_described(
            "Certificate chain that the invoicing service knows us by (PEM).", PATH
        ),
    )
    invoicing_tls_private_key_file: Path | None = field(
        default=None, metadata=_described("Its private key (PEM).", PATH)
    )
    invoicing_deadline_seconds: float = field(
        default=10.0,
        metadata=_described("Deadline of one attempt to create an invoice.", seconds(0.1, 300.0)),
    )
    invoicing_attempts: int = field(
        default=4,
        metadata=_described(
            "Attempts at an invoice in a run; the next run tries again.", whole_number(1, 20)
        ),
    )
    invoicing_concurrency: int = field(
        default=32,
        metadata=_described("Invoices being created at a time.", whole_number(1, 1000)),
    )
    metrics_address: str | None = field(
        default="127.0.0.1:9464",
        metadata=_described("Where Prometheus reads metrics; empty is off.", METRICS_ADDRESS),
    )
    otlp_endpoint: str | None = field(
        default=None,
        metadata=_described(
            "The OpenTelemetry collector to send traces to (OTLP over gRPC, http:// without TLS); "
            "`OTEL_*` variables set the rest.",
            OTLP_ENDPOINT,
        ),
    )
    log_level: str = field(
        default="info",
        metadata=_described(
            "The least severe level to log.", one_of("debug", "info", "warning", "error")
        ),
    )
    log_format: str = field(
        default="json",
        metadata=_described("How log lines look, on stderr.", one_of("json", "console")),
    )

    def __post_init__(self) -> None:
        """Raise ConfigurationInvalid for settings that contradict each other."""
        self._require_together("tls_certificate_file", "tls_private_key_file")
        self._require_together("mtls_listen_address", "tls_client_ca_file", "client_access_file")
        self._require_together("invoicing_tls_certificate_file", "invoicing_tls_private_key_file")
        self._require_with("mtls_listen_address", needed="tls_certificate_file")
        self._require_with(
            "invoicing_tls_certificate_file", needed="invoicing_tls_root_certificates_file"
        )
        if self.jwks_file is not None and self.jwks_url is not None:
            raise ConfigurationInvalid(
                variable_of("jwks_file"),
                f"and {variable_of('jwks_url')} exclude each other: set one",
            )

    def _require_together(self, *field_names: str) -> None:
        missing = [name for name in field_names if getattr(self, name) is None]
        if missing and len(missing) < len(field_names):
            raise ConfigurationInvalid(
                variable_of(missing[0]),
                f"is not set, and {' and '.join(map(variable_of, field_names))} go together: "
                "set all or none",
            )

    def _require_with(self, field_name: str, *, needed: str) -> None:
        if getattr(self, field_name) is not None and getattr(self, needed) is None:
            raise ConfigurationInvalid(
                variable_of(needed), f"is not set, and {variable_of(field_name)} needs it"
            )

    @property
    def uses_tls(self) -> bool:
        """Whether gRPC is served with TLS."""
        return self.tls_certificate_file is not None

    @property
    def uses_development_key(self) -> bool:
        """Whether tokens of the embedded default's own key are accepted, and no others."""
        return self.database_url is None and not self.has_token_issuer

    @property
    def has_token_issuer(self) -> bool:
        """Whether an issuer of tokens is configured."""
        return self.jwks_file is not None or self.jwks_url is not None

    @property
    def uses_client_certificates(self) -> bool:
        """Whether callers may present a client certificate instead of a token."""
        return self.mtls_listen_address is not None

    def require_servable(self) -> None:
        """Raise ConfigurationInvalid where `serve` would run open to others by accident."""
        knows_callers = self.has_token_issuer or self.uses_client_certificates
        if self.database_url is not None and not knows_callers:
            raise ConfigurationInvalid(
                variable_of("jwks_file"),
                f"or {variable_of('jwks_url')} or {variable_of('mtls_listen_address')} is needed "
                f"with {variable_of('database_url')}: "
                "only the embedded default accepts tokens of its own development key",
            )
        plaintext = not self.uses_tls and not self.allow_plaintext
        if plaintext and not is_loopback(self.listen_address):
            raise ConfigurationInvalid(
                variable_of("listen_address"),
                f"is {self.listen_address!r}, which others reach, and there is no TLS: set "
                f"{variable_of('tls_certificate_file')} and {variable_of('tls_private_key_file')}, "
                f"or {variable_of('allow_plaintext')}=true behind something that encrypts",
            )


def variable_of(field_name: str) -> str:
    """Return the environment variable of a field of Settings."""
    return PREFIX + field_name.upper()


def _setting_of(definition: "dataclasses.Field[Any]") -> Setting:
    default = definition.metadata["default_text"]
    if default is None:
        value = definition.default
        default = "" if value is None else value
        default = str(value).lower() if isinstance(value, bool) else default
        default = f"{value:g}" if isinstance(value, float) else default
    return Setting(
        variable=variable_of(definition.name),
        default=str(default),
        meaning=definition.metadata["meaning"],
        field_name=definition.name,
        is_secret=definition.metadata["is_secret"],
    )


SETTINGS: Final = tuple(_setting_of(definition) for definition in dataclasses.fields(Settings))
"""Every setting, in the order of documentation."""


def read_settings(environ: Mapping[str, str]) -> Settings:
    """Parse the settings in ``environ``; an empty variable is one that is not set.

    Raises ConfigurationInvalid, also for a variable that is nearly the name of a setting: a typo
    must not start the service with a default.
    """
    _refuse_near_misses(environ)
    values = {}
    for definition in dataclasses.fields(Settings):
        variable = variable_of(definition.name)
        text = environ.get(variable)
        if text is None or (not text and definition.metadata["form"] is not METRICS_ADDRESS):
            continue
        values[definition.name] = _parse(
            variable, text, definition.metadata["form"], is_secret=definition.metadata["is_secret"]
        )
    if "database_url_file" in values:
        values["database_url"] = _database_url_in(values["database_url_file"], values)
    return Settings(**values)


def _database_url_in(path: Path, values: Mapping[str, Any]) -> Any:
    variable = variable_of("database_url_file")
    if "database_url" in values:
        raise ConfigurationInvalid(
            variable, f"and {variable_of('database_url')} exclude each other: set one"
        )
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is no text"
        raise ConfigurationInvalid(
            variable, f"names {path}, which cannot be read: {problem}"
        ) from None
    return _parse(variable, text, DATABASE_URL, is_secret=True)


def _parse(variable: str, text: str, form: Format, *, is_secret: bool) -> Any:
    try:
        return form.parse(text.strip())
    except ValueError:
        shown = "not understood" if is_secret else repr(text)
        raise ConfigurationInvalid(variable, f"is {shown}; expected {form.expected}") from None


def _refuse_near_misses(environ: Mapping[str, str]) -> None:
    # Not every unknown name: an orchestrator adds its own, for example BILLING_SERVICE_HOST.
    known = [setting.variable for setting in SETTINGS]
    for name in environ:
        if name.startswith(PREFIX) and name not in known:
            similar = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR_MISS)
            if similar:
                raise ConfigurationInvalid(name, f"is not a setting; did you mean {similar[0]}?")
