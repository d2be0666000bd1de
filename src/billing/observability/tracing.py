"""Spans of use cases, and the trace's name in log lines. Uses the OpenTelemetry API alone."""

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar, cast

import structlog
from opentelemetry import trace

from billing.domain.errors import BillingError

T = TypeVar("T")

_TRACER: Final = trace.get_tracer(__name__)


def traced(use_cases: T) -> T:
    """Return the same use cases with a span around each call, for those who call from outside.

    Around the service and not in it: services stay free of it, a new use case cannot lack it, and
    what a service calls of its own is no use case.
    """
    return cast("T", _Traced(use_cases))


class _Traced:
    def __init__(self, use_cases: object) -> None:
        self._use_cases = use_cases

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._use_cases, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute
        spanned = _spanned(attribute, f"{type(self._use_cases).__name__}.{name}")
        setattr(self, name, spanned)  # where the next look-up finds it
        return spanned


def _spanned(
    use_case: Callable[..., Awaitable[Any]], span_name: str
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(use_case)
    async def spanned(*args: Any, **kwargs: Any) -> Any:
        # Where the RPC is not recorded, a span that records nothing would still take 10 us.
        if not trace.get_current_span().is_recording():
            return await use_case(*args, **kwargs)
        with _TRACER.start_as_current_span(
            span_name, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                return await use_case(*args, **kwargs)
            except Exception as error:
                span.set_attribute("error.type", type(error).__qualname__)
                if not isinstance(error, BillingError):  # a refusal is an answer
                    span.set_status(trace.StatusCode.ERROR)
                raise

    return spanned


def name_trace_in_logs(span: trace.Span) -> None:
    """Write the trace's id in the log lines of this context."""
    trace_id = span.get_span_context().trace_id
    if trace_id:
        structlog.contextvars.bind_contextvars(trace_id=trace.format_trace_id(trace_id))
