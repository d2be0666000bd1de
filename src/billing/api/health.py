"""The standard health service (grpc.health.v1), tied to the database.

Our own servicer and not that of grpcio-health-checking: there a watcher that leaves takes the news
from all others of its service, and every watcher holds up a graceful stop until its end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from billing.api.request_context import Context

SERVICE_NAME: Final = "grpc.health.v1.Health"
LIVENESS: Final = "liveness"
"""A name to check in place of a service: serves as long as the process answers at all.

For those who would restart it: no restart mends a database, and a draining server ends by itself.
"""

_PING_SECONDS: Final = 2.0
_PING_TIMEOUT_SECONDS: Final = 5.0
_WHOLE_SERVER: Final = ""

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Tells of the server and of each service whether it serves: all do, or none does."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({_WHOLE_SERVER, *services})
        self._is_serving = False
        self._is_closed = False
        self._changed = asyncio.Event()

    def set_serving(self, is_serving: bool) -> None:
        """Tell callers and watchers; after ``close`` without effect."""
        if not self._is_closed and is_serving != self._is_serving:
            self._is_serving = is_serving
            self._wake_watchers()

    def close(self) -> None:
        """Serve no more; watchers hear of it, and their streams end."""
        self._is_serving = False
        self._is_closed = True
        self._wake_watchers()

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Return the status of a service, or of the server if none is named."""
        if request.service not in self._services and request.service != LIVENESS:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this server has no such service")
        return self._response(request.service)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Yield the status now and after every change."""
        told: health_pb2.HealthCheckResponse | None = None
        while True:
            changed, is_last = self._changed, self._is_closed
            response = self._response(request.service)
            if response != told:
                yield response
                told = response
            if is_last:
                return
            await changed.wait()

    def _response(self, service: str) -> health_pb2.HealthCheckResponse:
        status = _SERVING if self._is_serving or service == LIVENESS else _NOT_SERVING
        known = service in self._services or service == LIVENESS
        return health_pb2.HealthCheckResponse(status=status if known else _SERVICE_UNKNOWN)

    def _wake_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class DatabaseWatch:
    """Asks the database every two seconds whether it answers, and tells the health service."""

    def __init__(self, ping: Callable[[], Awaitable[None]], health: HealthServicer) -> None:
        """``ping`` raises if the database does not answer."""
        self._ping = ping
        self._health = health
        self._answers: bool | None = None

    async def look(self) -> None:
        """Ask once; waits at most five seconds for the answer."""
        try:
            async with asyncio.timeout(_PING_TIMEOUT_SECONDS):
                await self._ping()
        except Exception as error:  # noqa: BLE001 - whatever it is, the database does not answer
            if self._answers is not False:
                _log.warning("database_does_not_answer", error=str(error) or repr(error))
            self._answers = False
        else:
            if self._answers is False:
                _log.info("database_answers_again")
            self._answers = True
        self._health.set_serving(self._answers)

    async def run(self) -> None:
        """Ask again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(_PING_SECONDS)
            await self.look()
