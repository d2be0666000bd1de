"""One OpenTelemetry span an RPC, below the caller's; costs little while no SDK is installed."""

import asyncio
from typing import Any, Final, cast

import grpc
import grpc.aio
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from billing.api.interceptors.method import Answer, AnswerInterceptor, split_path
from billing.api.request_context import Context
from billing.observability.tracing import name_trace_in_logs

_PROPAGATOR: Final = TraceContextTextMapPropagator()
_SERVER_FAULTS: Final = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE})


class TracingInterceptor(AnswerInterceptor):
    """Continues the caller's trace (W3C ``traceparent`` metadata)."""

    def __init__(self) -> None:
        super().__init__()
        self._tracer = trace.get_tracer("billing.api")

    def around(self, path: str, answer: Answer) -> Answer:
        """See AnswerInterceptor."""
        service, method = split_path(path)
        attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}

        async def traced(request: Any, context: Context) -> Any:
            parent = _PROPAGATOR.extract(dict(_text_metadata(context)))
            with self._tracer.start_as_current_span(
                f"{service}/{method}",
                context=parent,
                kind=trace.SpanKind.SERVER,
                attributes=attributes,
                # An abort is no news; the interceptor of errors records what is.
                record_exception=False,
                set_status_on_exception=False,
            ) as span:
                name_trace_in_logs(span)
                try:
                    return await answer(request, context)
                except (grpc.aio.AbortError, asyncio.CancelledError):
                    _set_status(span, context)
                    raise

        return traced


def _text_metadata(context: Context) -> list[tuple[str, str]]:
    return [
        (key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)
    ]


def _set_status(span: trace.Span, context: Context) -> None:
    # Its type leaves out that there is none before a status is set.
    code = cast("grpc.StatusCode | None", context.code()) or grpc.StatusCode.CANCELLED
    span.set_attribute("rpc.grpc.status_code", code.value[0])
    if code in _SERVER_FAULTS:
        span.set_status(trace.Status(trace.StatusCode.ERROR))
