"""Spans that a test records.

OpenTelemetry takes one provider a process, and for good: so this one can be switched off.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class _SwitchedTracer(trace.Tracer):
    """The SDK's tracer while a test records; otherwise the one there is without the SDK."""

    def __init__(self, recording: trace.Tracer) -> None:
        self._recording = recording
        self._idle = trace.NoOpTracer()

    @property
    def _current(self) -> trace.Tracer:
        return self._recording if _switch.is_on else self._idle

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        return self._current.start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._current.start_as_current_span(*args, **kwargs)


class _SwitchedProvider(trace.TracerProvider):
    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _SwitchedTracer(_sdk.get_tracer(*args, **kwargs))


@dataclass
class _Switch:
    is_on: bool = False


class Recording:
    """The spans that ended while a test recorded, oldest first."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        """All of them."""
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """Those of a name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only one of a name."""
        spans = self.named(name)
        assert len(spans) == 1, [span.name for span in self.spans]
        return spans[0]

    def children(self, parent: ReadableSpan) -> list[ReadableSpan]:
        """Those right below a span."""
        return [
            span for span in self.spans if span.parent and span.parent.span_id == span_id(parent)
        ]

    def below(self, ancestor: ReadableSpan) -> list[ReadableSpan]:
        """Those anywhere below a span."""
        found = self.children(ancestor)
        return found + [span for child in found for span in self.below(child)]


def span_id(span: ReadableSpan) -> int:
    """The id that its children name as their parent."""
    context = span.context
    assert context is not None
    return int(context.span_id)


def trace_id(span: ReadableSpan) -> str:
    """The trace that a span is of, as it is written."""
    context = span.context
    assert context is not None
    return trace.format_trace_id(context.trace_id)


_switch = _Switch()
_exporter = InMemorySpanExporter()
_sdk = TracerProvider(shutdown_on_exit=False)
_sdk.add_span_processor(SimpleSpanProcessor(_exporter))
_provider = _SwitchedProvider()


@contextmanager
def recording() -> Iterator[Recording]:
    """Record the spans of this process until the block ends."""
    if trace.get_tracer_provider() is not _provider:
        trace.set_tracer_provider(_provider)
    _exporter.clear()
    _switch.is_on = True
    try:
        yield Recording(_exporter)
    finally:
        _switch.is_on = False
