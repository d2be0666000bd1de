"""The gRPC server: what listens, what guards it, how it stops."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from billing.api import health
from billing.api.access import AccessPolicy
from billing.api.authentication import Authenticator
from billing.api.client_access import ClientAccessFile
from billing.api.interceptors import all_interceptors
from billing.api.transport_security import mtls_credentials, server_credentials
from billing.config import Settings, variable_of
from billing.observability.metrics import Metrics

Registration: TypeAlias = tuple[Callable[[Any, grpc.aio.Server], None], object, ServiceDescriptor]
"""``add_XServicer_to_server``, the servicer, and the descriptor of its service."""

# gRPC reads a message before anything of ours sees it, so there must be a limit; a request between
# ours and this one is refused with ErrorInfo, one above it without.
_HARD_LIMIT_FACTOR: Final = 4

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ListenAddressUnavailable(Exception):
    """Another program has the address, or it is not this machine's."""

    def __init__(self, address: str, field_name: str = "listen_address") -> None:
        super().__init__(
            f"cannot listen on {address}: it is in use, not this machine's or not permitted; "
            f"choose another {variable_of(field_name)}"
        )
        self.address = address


class ApiServer:
    """Serves the API, its health and, if configured, its schema."""

    def __init__(
        self,
        settings: Settings,
        registrations: Sequence[Registration],
        *,
        authenticator: Authenticator,
        metrics: Metrics,
        database_ping: Callable[[], Awaitable[None]],
        client_access: ClientAccessFile | None = None,
    ) -> None:
        """``database_ping`` raises if the database does not answer.

        ``client_access`` knows the bearers of client certificates, where these are configured.
        Raises ConfigurationInvalid for settings that would serve strangers, and ContractIncomplete
        if an RPC declares no capability.
        """
        settings.require_servable()
        descriptors = [descriptor for _, _, descriptor in registrations]
        self._settings = settings
        self._registrations = tuple(registrations)
        self._services = tuple(descriptor.full_name for descriptor in descriptors)
        self._interceptors = all_interceptors(
            authenticator=authenticator,
            client_access=client_access,
            policy=AccessPolicy.of(descriptors),
            metrics=metrics,
            max_message_bytes=settings.max_message_bytes,
        )
        self._health = health.HealthServicer(self._services)
        self._database_watch = health.DatabaseWatch(database_ping, self._health)
        self._watching: asyncio.Task[None] | None = None
        self._server: grpc.aio.Server | None = None
        self._port = 0
        self._mtls_port = 0

    @property
    def address(self) -> str:
        """Where it listens: with the port that it got where 0 was asked for."""
        return _with_port(self._settings.listen_address, self._port)

    @property
    def mtls_address(self) -> str | None:
        """Where it listens for callers with client certificates, None if nowhere."""
        address = self._settings.mtls_listen_address
        return address and _with_port(address, self._mtls_port)

    async def start(self) -> None:
        """Return when RPCs are answered; the health then tells whether the database does.

        Raises ListenAddressUnavailable, and ConfigurationInvalid for a certificate or key that
        cannot be used.
        """
        credentials = server_credentials(self._settings)
        server = self._make_server()
        self._port = _bind(server, "listen_address", self._settings.listen_address, credentials)
        if self._settings.mtls_listen_address is not None:
            self._mtls_port = _bind(
                server,
                "mtls_listen_address",
                self._settings.mtls_listen_address,
                mtls_credentials(self._settings),
            )
        await self._database_watch.look()
        await server.start()
        self._server = server
        self._watching = asyncio.create_task(self._database_watch.run())
        _log.info(
            "serving",
            address=self.address,
            tls=credentials is not None,
            mtls_address=self.mtls_address,
        )

    async def stop(self, grace_seconds: float) -> None:
        """Tell that it no longer serves, take no new RPCs, and give running ones so much time.

        Returns when all have ended; may be called again, and without a start.
        """
        self._health.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
            self._watching = None
        if self._server is not None:
            await self._server.stop(grace_seconds)
            self._server = None

    def _make_server(self) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=self._interceptors,
            options=_options(self._settings),
            maximum_concurrent_rpcs=self._settings.max_concurrent_rpcs,
        )
        for add_to_server, servicer, _ in self._registrations:
            add_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.reflection:
            names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        return server


def _options(settings: Settings) -> list[tuple[str, Any]]:
    return [
        # Two servers on one port would share its connections, and hide that one is forgotten.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", _HARD_LIMIT_FACTOR * settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Find dead clients, and let clients keep a connection alive through what cuts idle ones.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def _with_port(address: str, port: int) -> str:
    if address.startswith("unix:"):
        return address
    return f"{address.rpartition(':')[0]}:{port}"


def _bind(
    server: grpc.aio.Server,
    field_name: str,
    address: str,
    credentials: grpc.ServerCredentials | None,
) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:  # gRPC writes the reason to its own log alone
        raise ListenAddressUnavailable(address, field_name) from error
