"""Counts and times RPCs by service, method and status code."""

import time
from typing import Any, Final, cast

import grpc

from billing.api.interceptors.method import Answer, AnswerInterceptor, split_path
from billing.api.request_context import Context
from billing.observability.metrics import Metrics

# A deadline counts from when the request was sent for the caller, and from its arrival for us: so
# the caller's passes first, and what we see is that it cancels.
_DEADLINE_LEEWAY_SECONDS: Final = 0.1


class MeteringInterceptor(AnswerInterceptor):
    """Feeds ``billing_rpcs``, ``billing_rpc_duration_seconds`` and ``billing_rpcs_in_flight``."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__()
        self._metrics = metrics

    def around(self, path: str, answer: Answer) -> Answer:
        """See AnswerInterceptor."""
        meter = self._metrics.rpc(*split_path(path))

        async def metered(request: Any, context: Context) -> Any:
            meter.began()
            began_at = time.perf_counter()
            code = "OK"
            try:
                return await answer(request, context)
            except BaseException:
                code = _code_of_failure(context)
                raise
            finally:
                meter.ended(code, seconds=time.perf_counter() - began_at)

        return metered


def _code_of_failure(context: Context) -> str:
    # Their types leave out that there may be no status yet, and no deadline.
    code = cast("grpc.StatusCode | None", context.code())
    if code is not None:
        return code.name
    # The RPC was cancelled, by its caller or by its deadline.
    remaining_seconds = cast("float | None", context.time_remaining())
    is_late = remaining_seconds is not None and remaining_seconds <= _DEADLINE_LEEWAY_SECONDS
    return "DEADLINE_EXCEEDED" if is_late else "CANCELLED"
