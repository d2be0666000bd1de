"""What all interceptors share: one handler for each RPC method, whether it answers once or streams.

A stream is a unary answer that writes: the servicer's generator is turned into a function that
writes its messages to the call. So every interceptor is one function around another, and what it
does at the end happens in the task of the RPC, also when the caller leaves in the middle.
"""

import abc
import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
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


class RequestStreamNotGuarded(Exception):
    """An RPC takes a stream, and interceptors guard single requests: it must not be answered."""


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
        if handler.request_streaming:
            raise RequestStreamNotGuarded(path)
        answer = handler.unary_stream if handler.response_streaming else handler.unary_unary
        if inspect.isasyncgenfunction(answer):
            answer = _writing(answer)
        return self.cover(path, handler, answer)

    @abc.abstractmethod
    def cover(self, path: str, handler: Handler, answer: AnyAnswer) -> Handler:
        """Return a handler that goes by way of ``handler``, whose function is ``answer``."""


class AnswerInterceptor(MethodInterceptor):
    """Puts a function around that of every method of the API."""

    def cover(self, path: str, handler: Handler, answer: AnyAnswer) -> Handler:
        """Return a handler with ``around`` around its function."""
        return handler_like(
            handler, self.around(path, answer), request_deserializer=handler.request_deserializer
        )

    @abc.abstractmethod
    def around(self, path: str, answer: Answer) -> Answer:
        """Return the function that answers RPCs of the method ``path`` by way of ``answer``."""


def handler_like(
    handler: Handler, answer: AnyAnswer, *, request_deserializer: AnyAnswer | None
) -> Handler:
    """Return a handler of the same kind with another function, and another way to read requests."""
    make = (
        grpc.unary_stream_rpc_method_handler
        if handler.response_streaming
        else grpc.unary_unary_rpc_method_handler
    )
    return make(
        answer,
        request_deserializer=request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _writing(stream: AnyAnswer) -> Answer:
    """Return a function that writes what the servicer's generator yields."""

    async def written(request: Any, context: Context) -> None:
        async with aclosing(stream(request, context)) as messages:
            async for message in messages:
                await context.write(message)

    return written
