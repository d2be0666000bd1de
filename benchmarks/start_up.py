"""From the command to the first answer, against an interpreter that imports gRPC and asyncpg."""

import asyncio
import os
import sys
import time

import uvloop

from benchmarks.surroundings import report, temporary_directory
from billing.sandbox.development_key import load_or_create_key
from billing.sandbox.embedded_postgres import EmbeddedPostgresServer
from billing.store.migrations import migrate

REPEATS = 5
IMPORTS = "import grpc.aio, asyncpg, google.protobuf.message"


async def main() -> None:
    """Start with a migrated database, as in production; the best of several starts."""
    with temporary_directory() as directory:
        key = load_or_create_key(directory)
        async with EmbeddedPostgresServer(directory / "postgres") as postgres:
            await migrate(postgres.url())
            environment = {
                **{k: v for k, v in os.environ.items() if not k.startswith("BILLING_")},
                "BILLING_DATABASE_URL": postgres.url(),
                "BILLING_JWKS_FILE": str(key.jwks_file),
                "BILLING_LISTEN_ADDRESS": f"unix:{directory}/billing.sock",
                "BILLING_METRICS_ADDRESS": "",
                "BILLING_LOG_LEVEL": "warning",
                "PYTHONUNBUFFERED": "1",
            }
            ours = [
                await _start(["-m", "billing.cli", "serve"], environment) for _ in range(REPEATS)
            ]
            bare = f"{IMPORTS}; print('ready')"
            floor = [await _start(["-c", bare], environment) for _ in range(REPEATS)]
            report("start_up", ours=min(ours), floor=min(floor), unit="ms")


async def _start(arguments: list[str], environment: dict[str, str]) -> float:
    """Return milliseconds to the first line of output."""
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline()
    took_ms = 1e3 * (time.perf_counter() - began)
    if process.returncode is None:
        process.terminate()
    await process.communicate()
    return took_ms


if __name__ == "__main__":
    uvloop.run(main())
