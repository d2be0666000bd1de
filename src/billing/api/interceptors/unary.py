"""What all interceptors are: a function around another one, put there once for each RPC method."""

import abc
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio

from billing.api.request_context import Context

Answer: TypeAlias = Callable[[Any, Context], Awaitable[Any]]
"""Answers an RPC: the servicer's method, or one of these around it."""

Handler: TypeAlias = Any  # gRPC gives handlers no generic type at run time
AnyAnswer: TypeAlias = Callable[..., Any]  # gRPC's types know the functions of sync servers only

UNGUARDED_SERVICES: Final = frozenset(
    {"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
)
"""The only services that anyone may call; interceptors leave them alone."""


class StreamingNotGuarded(Exception):
    """An RPC streams, and interceptors guard unary ones alone: it must not be answered."""


def split_path(path: str) -> tuple[str, str]:
    """Return service and method of ``/package.Service/Method``."""
    service, _, method = path.removeprefix("/").rpartition("/")
    return service, method


class MethodInterceptor(grpc.aio.ServerInterceptor):
    """Changes the handler of every method of the API.

    The handler of a method is made at its first call and then kept: the outermost interceptor
    keeps what all of them made, so a call costs one look-up and not a chain of continuations.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of the RPC; None for a method that does not exist."""
        path = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is None:
            found = await continuation(handler_call_details)
            if found is None:
                return None
            handler = self._handlers[path] = self._guarded(path, found)
        return handler

    def _guarded(self, path: str, handler: Handler) -> Handler:
        service, _ = split_path(path)
        if service in UNGUARDED_SERVICES:
            return handler
        if handler.unary_unary is None:
            raise StreamingNotGuarded(path)
        return self.cover(path, handler, handler.unary_unary)

    @abc.abstractmethod
    def cover(self, path: str, handler: Handler, answer: AnyAnswer) -> Handler:
        """Return a handler that goes by way of ``handler``, whose function is ``answer``."""


class UnaryInterceptor(MethodInterceptor):
    """Puts a function around that of every method of the API."""

    def cover(self, path: str, handler: Handler, answer: AnyAnswer) -> Handler:
        """Return a handler with ``around`` around its function."""
        return grpc.unary_unary_rpc_method_handler(
            self.around(path, answer),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    @abc.abstractmethod
    def around(self, path: str, answer: Answer) -> Answer:
        """Return the function that answers RPCs of the method ``path`` by way of ``answer``."""
