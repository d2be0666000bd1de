"""Spans on their way to a collector. OpenTelemetry takes one exporter a process: so in others."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import grpc.aio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

PROGRAM = """
import asyncio, sys
from opentelemetry import trace
from billing.observability.span_export import exported_spans

async def main():
    async with exported_spans(sys.argv[1]):
        with trace.get_tracer("test").start_as_current_span("boiled an egg"):
            pass
    print("ended")

asyncio.run(main())
"""
IMPORTED = """
import sys
import billing.cli
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exp"))])
"""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it receives."""

    def __init__(self) -> None:
        self.requests: list[pb.ExportTraceServiceRequest] = []

    async def Export(
        self, request: pb.ExportTraceServiceRequest, context: object
    ) -> pb.ExportTraceServiceResponse:
        self.requests.append(request)
        return pb.ExportTraceServiceResponse()


@asynccontextmanager
async def running(collector: Collector) -> AsyncIterator[str]:
    """Yield the collector's endpoint."""
    server = grpc.aio.server()
    add_servicer: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    add_servicer(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"http://127.0.0.1:{port}"
    await server.stop(0)


async def run(program: str, *arguments: str) -> str:
    """Run a Python program and return what it prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        *arguments,
        env={"no_proxy": "127.0.0.1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), timeout=60)
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_the_last_spans_are_sent_before_the_end_and_name_the_service() -> None:
    collector = Collector()
    async with running(collector) as endpoint:
        assert await run(PROGRAM, endpoint) == "ended\n"
    [request] = collector.requests
    [resource_spans] = request.resource_spans
    attributes = {a.key: a.value.string_value for a in resource_spans.resource.attributes}
    assert attributes["service.name"] == "billing-service"
    assert attributes["service.version"] == version("billing-service")
    [span] = resource_spans.scope_spans[0].spans
    assert span.name == "boiled an egg"


async def test_a_collector_that_does_not_answer_holds_up_the_end_for_seconds_only() -> None:
    with socket.socket() as refusing, socket.socket() as silent:
        for endpoint in (refusing, silent):
            endpoint.bind(("127.0.0.1", 0))
        silent.listen()
        began_at = time.monotonic()
        ends = await asyncio.gather(
            *(
                run(PROGRAM, f"http://127.0.0.1:{endpoint.getsockname()[1]}")
                for endpoint in (refusing, silent)
            )
        )
    assert ends == ["ended\n", "ended\n"]
    assert time.monotonic() - began_at < 25


async def test_without_a_collector_the_sdk_is_not_even_imported() -> None:
    assert await run(IMPORTED) == "[]\n"
