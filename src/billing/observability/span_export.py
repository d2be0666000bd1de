"""Sends spans to an OpenTelemetry collector. Imported only where one is configured: it takes time.

The variables ``OTEL_*`` of the specification set the rest: sampler, headers, certificates, limits.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

_DISTRIBUTION: Final = "billing-service"
_FLUSH_SECONDS: Final = 5.0


@asynccontextmanager
async def exported_spans(endpoint: str) -> AsyncIterator[None]:
    """Record and send spans, and at the end what is left of them.

    ``endpoint`` speaks OTLP over gRPC. Once a process: OpenTelemetry takes no second provider. A
    collector that does not answer costs spans and, at the end, five seconds; nothing else.
    """
    resource = Resource.create(
        {SERVICE_NAME: _DISTRIBUTION, SERVICE_VERSION: version(_DISTRIBUTION)}
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        await asyncio.to_thread(_flush, provider)


def _flush(provider: TracerProvider) -> None:
    # The SDK would try for half a minute. A daemon thread does not keep the process from its end.
    stopping = threading.Thread(target=provider.shutdown, daemon=True)
    stopping.start()
    stopping.join(_FLUSH_SECONDS)
