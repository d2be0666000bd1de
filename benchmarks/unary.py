"""Unary calls a second through all interceptors, against a bare server with a bare statement."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import grpc.aio
import uvloop

from benchmarks.surroundings import report, surroundings, temporary_directory
from billing.domain.identifiers import USAGE_METER, from_typeid
from billing.v1 import catalog_pb2, catalog_pb2_grpc

SECONDS = 6.0
CALLERS = 16
PATH = "/billing.v1.CatalogService/GetUsageMeter"


async def calls_per_second(call: Callable[[], Awaitable[object]]) -> float:
    """Call from several callers for a while, and return how often."""
    ends = time.perf_counter() + SECONDS

    async def caller() -> int:
        count = 0
        while time.perf_counter() < ends:
            await call()
            count += 1
        return count

    counts = await asyncio.gather(*[caller() for _ in range(CALLERS)])
    return sum(counts) / SECONDS


async def main() -> None:
    """Measure a read of one row by its key; the floor reads it too, and answers the same bytes."""
    async with surroundings() as around:
        client = around.client
        meter = await client.create_meter()
        request = catalog_pb2.GetUsageMeterRequest(tenant_id=client.tenant_id, usage_meter_id=meter)
        calls = client.catalog
        answer = await calls.GetUsageMeter(request)
        ours = await calls_per_second(lambda: calls.GetUsageMeter(request))
        floor = await _floor(around.database_url, request, answer)
        report("unary_read", ours=ours, floor=floor, unit="calls/s")


async def _floor(
    database_url: str,
    request: catalog_pb2.GetUsageMeterRequest,
    answer: catalog_pb2.GetUsageMeterResponse,
) -> float:
    """A bare server in a process of its own, as ours is."""
    with temporary_directory() as directory:
        address = f"unix:{directory}/floor.sock"
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.bare_server",
            address,
            database_url,
            PATH,
            request.tenant_id,
            str(from_typeid(USAGE_METER, request.usage_meter_id)),
            answer.SerializeToString().hex(),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        await process.stdout.readline()
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = catalog_pb2_grpc.CatalogServiceStub(channel)
                return await calls_per_second(lambda: stub.GetUsageMeter(request))
        finally:
            process.kill()
            await process.wait()


if __name__ == "__main__":
    uvloop.run(main())
