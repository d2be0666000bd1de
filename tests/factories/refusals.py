"""What a caller learns of a failed RPC."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass

import grpc.aio
import pytest

from tests.factories.client import error_info, violated_fields


@dataclass(frozen=True)
class Refusal:
    """A failed RPC: its code, the ErrorInfo that every error carries, and the fields it names."""

    code: str
    reason: str
    message: str
    fields: Sequence[str]
    metadata: Mapping[str, str]

    @property
    def kind(self) -> tuple[str, str]:
        """Code and reason."""
        return self.code, self.reason


async def refusal_of(call: Awaitable[object]) -> Refusal:
    """Return how the call is refused; fails if it is not, or without this service's ErrorInfo."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    error = failed.value
    info = error_info(error)
    assert info.domain == "billing-service"
    return Refusal(
        code=error.code().name,
        reason=info.reason,
        message=error.details() or "",
        fields=violated_fields(error),
        metadata=dict(info.metadata),
    )


async def outcome_of(call: Awaitable[object]) -> str:
    """Return the reason of a refusal, or nothing."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error_info(error).reason
    return ""
