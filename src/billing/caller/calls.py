"""Calls to the service: with a deadline, tried again while it is away, and told clearly."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from billing.caller.errors import CallFailed

_STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
_TOO_LARGE: Final = "MESSAGE_TOO_LARGE"
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
_ADVICE: Final = {
    grpc.StatusCode.UNAUTHENTICATED: "the service does not accept the token",
    grpc.StatusCode.PERMISSION_DENIED: "the token does not allow this",
    grpc.StatusCode.UNAVAILABLE: "the service does not answer",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the service does not answer in time",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the service has no room for the call",
    grpc.StatusCode.UNIMPLEMENTED: "what listens there is not the billing service",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """How long a call may take, and how it is tried again.

    ``first_patience_seconds`` is for the first call: a wrong address should not take a minute.
    """

    deadline_seconds: float = 30.0
    first_pause_seconds: float = 0.2
    longest_pause_seconds: float = 5.0
    patience_seconds: float = 60.0
    first_patience_seconds: float = 5.0


@dataclass(slots=True)
class PendingCall:
    """A call on its way."""

    name: str
    method: Any
    request: Any
    patience_seconds: float
    future: Any = None


class _Patience:
    """How long to go on trying, from the first failure on, and how long to wait in between."""

    def __init__(self, policy: CallPolicy) -> None:
        self._longest_pause_seconds = policy.longest_pause_seconds
        self._failed_at: float | None = None
        self.pause_seconds = policy.first_pause_seconds

    def left_seconds(self, seconds: float) -> float:
        """Return what is left of so much patience."""
        now = time.monotonic()
        self._failed_at = now if self._failed_at is None else self._failed_at
        return self._failed_at + seconds - now

    def wait(self) -> None:
        """Wait; twice as long the next time."""
        # Jitter keeps callers that failed together from coming back together.
        time.sleep(self.pause_seconds * random.uniform(0.5, 1.0))  # noqa: S311
        self.pause_seconds = min(2 * self.pause_seconds, self._longest_pause_seconds)


class ServiceCaller:
    """Makes calls that are safe to send again: they read, or carry idempotency keys."""

    def __init__(
        self,
        *,
        read_token: Callable[[], str],
        policy: CallPolicy,
        notice: Callable[[str], None],
        too_large_advice: str = "ask for less at a time",
    ) -> None:
        """``read_token`` is asked before each call: a file's token may be renewed.

        It returns an empty text where a client certificate says who calls.

        ``notice`` gets a line for people at each call that is tried again.
        """
        self._read_token = read_token
        self._policy = policy
        self._notice = notice
        self._too_large_advice = too_large_advice

    def call(self, name: str, method: Any, request: Any, *, first: bool = False) -> Any:
        """Return the answer; raises CallFailed. ``name`` is the RPC's, for people."""
        return self.finish(self.begin(name, method, request, first=first))

    def begin(self, name: str, method: Any, request: Any, *, first: bool = False) -> PendingCall:
        """Send a request; ``finish`` waits for its answer."""
        policy = self._policy
        patience_seconds = policy.first_patience_seconds if first else policy.patience_seconds
        call = PendingCall(name, method, request, patience_seconds)
        self._send(call)
        return call

    def finish(self, call: PendingCall) -> Any:
        """Return the answer, after as many tries as patience allows; raises CallFailed."""
        patience = _Patience(self._policy)
        while True:
            try:
                return call.future.result()
            except grpc.RpcError as error:
                self._wait_after(error, call.name, patience, seconds=call.patience_seconds)
            self._send(call)

    def stream(
        self,
        name: str,
        method: Any,
        request: Any,
        *,
        begin: Callable[[], None],
        receive: Callable[[Any], None],
    ) -> None:
        """Pass each part of a streamed answer to ``receive``; raises CallFailed.

        After a lost connection all of it comes again, and ``begin`` is called before each time. It
        has no deadline: the channel notices a service that is gone.
        """
        patience = _Patience(self._policy)
        seconds = self._policy.first_patience_seconds
        while True:
            begin()
            parts = method(request, metadata=self.metadata())
            try:
                for part in parts:
                    seconds = self._policy.patience_seconds
                    receive(part)
            except grpc.RpcError as error:
                self._wait_after(error, name, patience, seconds=seconds)
            else:
                return
            finally:
                parts.cancel()

    def _wait_after(
        self, error: grpc.RpcError, name: str, patience: "_Patience", *, seconds: float
    ) -> None:
        """Wait before the next try; raises CallFailed if there is none."""
        problem = self.describe(name, error)
        left_seconds = patience.left_seconds(seconds)
        if not passes(error) or left_seconds < patience.pause_seconds:
            raise CallFailed(problem) from error
        self._notice(f"{problem}; trying again for {left_seconds:.0f} s")
        patience.wait()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what goes with each call."""
        token = self._read_token()
        return (("authorization", f"Bearer {token}"),) if token else ()

    def describe(self, name: str, error: Any) -> str:
        """Tell in one line what became of a call."""
        if _reason(error) == _TOO_LARGE:
            return f"{error.details()}: {self._too_large_advice}"
        code: grpc.StatusCode = error.code()
        advice = _ADVICE.get(code, f"{name} failed")
        return f"{advice} ({code.name}: {error.details()})"

    def _send(self, call: PendingCall) -> None:
        call.future = call.method.future(
            call.request, timeout=self._policy.deadline_seconds, metadata=self.metadata()
        )


def passes(error: Any) -> bool:
    """Return whether the same call may succeed a little later."""
    return error.code() in _PASSING and _reason(error) != _TOO_LARGE


def _reason(error: Any) -> str:
    """Return the reason in the ErrorInfo, if the service sent one."""
    for name, value in error.trailing_metadata() or ():
        if name == _STATUS_DETAILS_KEY:
            info = error_details_pb2.ErrorInfo()
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return str(info.reason)
    return ""
