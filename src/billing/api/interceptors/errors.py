"""Turns whatever went wrong into a status that tells the caller what to do, and nothing more."""

from typing import Any, Final

import grpc
import grpc.aio
import structlog
from opentelemetry import trace

from billing.api.errors import STATUS_DETAILS_KEY, code_of, status_of
from billing.api.interceptors.method import Answer, AnswerInterceptor
from billing.api.request_context import (
    REQUEST_ID_KEY,
    Context,
    current_request_id,
    current_trace_id,
)

_MAX_LOGGED_CHARACTERS: Final = 500

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class ErrorInterceptor(AnswerInterceptor):
    """Aborts failed RPCs with ``google.rpc.Status``. Cancellations pass."""

    def around(self, path: str, answer: Answer) -> Answer:
        """See AnswerInterceptor."""

        async def described(request: Any, context: Context) -> Any:
            try:
                return await answer(request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the boundary: nothing may leak to callers
                code = code_of(error)
                _report(error, code)
                await _abort(context, error, code)

        return described


async def _abort(context: Context, error: Exception, code: grpc.StatusCode) -> None:
    request_id = current_request_id()
    status = status_of(error, request_id=request_id, trace_id=current_trace_id())
    await context.abort(
        code,
        status.message,
        trailing_metadata=(
            (REQUEST_ID_KEY, request_id),
            (STATUS_DETAILS_KEY, status.SerializeToString()),
        ),
    )


def _report(error: Exception, code: grpc.StatusCode) -> None:
    if code is grpc.StatusCode.INTERNAL:
        trace.get_current_span().record_exception(error)
        _log.error("rpc_failed", code=code.name, exc_info=error)
    elif code is grpc.StatusCode.UNAVAILABLE:
        _log.warning("rpc_failed", code=code.name, error=str(error), cause=repr(error.__cause__))
    else:
        _log.info("rpc_refused", code=code.name, error=str(error)[:_MAX_LOGGED_CHARACTERS])
