"""The floor of a unary read: a bare grpc.aio server that reads the row and answers fixed bytes.

Arguments: where to listen, the database, the method's path, tenant, meter (UUID), answer (hex).
"""

import sys
from typing import Any

import asyncpg
import grpc
import grpc.aio
import uvloop

STATEMENT = "SELECT * FROM usage_meters WHERE tenant_id = $1 AND livemode AND id = $2"


async def serve(
    address: str, database_url: str, path: str, tenant_id: str, meter_id: str, answer: str
) -> None:
    """Serve until killed; print a line when ready."""
    pool = await asyncpg.create_pool(database_url, min_size=10)
    content = bytes.fromhex(answer)

    async def read(request: bytes, context: Any) -> bytes:
        await pool.fetchrow(STATEMENT, tenant_id, meter_id)
        return content

    service, method = path.strip("/").split("/")
    handler: Any = grpc.unary_unary_rpc_method_handler(read)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    server.add_insecure_port(address)
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(*sys.argv[1:]))
