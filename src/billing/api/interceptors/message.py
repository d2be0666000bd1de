"""Decodes requests, inside of what knows the caller: strangers get nothing parsed.

Outside of it a request is bytes. gRPC itself would decode before all interceptors, and answer
malformed bytes with the text of an exception.
"""

from typing import Any

from google.protobuf.message import DecodeError

from billing.api.errors import MessageMalformed, MessageTooLarge
from billing.api.interceptors.method import AnyAnswer, Handler, MethodInterceptor, handler_like
from billing.api.request_context import Context


class MessageInterceptor(MethodInterceptor):
    """Refuses requests that are too large, or no messages of the RPC's type.

    gRPC's own limit is higher: it would refuse them without ErrorInfo.
    """

    def __init__(self, *, max_message_bytes: int) -> None:
        super().__init__()
        self._max_message_bytes = max_message_bytes

    def cover(self, path: str, handler: Handler, answer: AnyAnswer) -> Handler:
        """Return a handler that takes bytes."""
        decode = handler.request_deserializer
        assert decode is not None

        async def decoded(content: bytes, context: Context) -> Any:
            if len(content) > self._max_message_bytes:
                raise MessageTooLarge(size_bytes=len(content), limit_bytes=self._max_message_bytes)
            try:
                request = decode(content)
            except DecodeError as error:
                raise MessageMalformed(method=path) from error
            return await answer(request, context)

        return handler_like(handler, decoded, request_deserializer=None)
