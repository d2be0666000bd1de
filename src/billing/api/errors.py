"""Every failure of an RPC, as ``google.rpc.Status``: one table for the codes, one form for all."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from billing.api.access import AccessDenied
from billing.api.authentication import CredentialsRefused
from billing.api.request_context import REQUEST_ID_KEY
from billing.api.violations import FieldViolation, RequestInvalid
from billing.domain.errors import (
    AlreadyExists,
    BillingError,
    InvalidInput,
    NotFound,
    Unavailable,
    WrongState,
)

ERROR_DOMAIN: Final = "billing-service"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata that carries the Status, as all gRPC libraries know it."""

RETRY_DELAY_SECONDS: Final = 1

# Trailing metadata beyond 8 KiB is dropped by clients, and with it the status. The message is sent
# twice, once percent-encoded; the Status is sent in base64.
_MAX_MESSAGE_BYTES: Final = 600
_MAX_VALUE_BYTES: Final = 200
_MAX_STATUS_BYTES: Final = 3000


class MessageTooLarge(BillingError):
    """The request has more bytes than the server takes."""

    def __init__(self, *, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"the request has {size_bytes} bytes, and at most {limit_bytes} are taken; "
            "send it in parts",
            size_bytes=size_bytes,
            limit_bytes=limit_bytes,
        )


class MessageMalformed(BillingError):
    """The request's bytes are no message of the RPC's type."""

    def __init__(self, *, method: str) -> None:
        super().__init__(f"the request's bytes are no message that {method} takes", method=method)


CODES: Final[Mapping[type[BillingError], grpc.StatusCode]] = MappingProxyType(
    {
        AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
        NotFound: grpc.StatusCode.NOT_FOUND,
        InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
        RequestInvalid: grpc.StatusCode.INVALID_ARGUMENT,
        MessageMalformed: grpc.StatusCode.INVALID_ARGUMENT,
        MessageTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
        WrongState: grpc.StatusCode.FAILED_PRECONDITION,
        Unavailable: grpc.StatusCode.UNAVAILABLE,
        CredentialsRefused: grpc.StatusCode.UNAUTHENTICATED,
        AccessDenied: grpc.StatusCode.PERMISSION_DENIED,
    }
)
"""The code of each family of errors. An error outside all of them is an internal one."""


def code_of(error: BaseException) -> grpc.StatusCode:
    """Return the code of an error: of the nearest of its families in the table."""
    for family in type(error).__mro__:
        if family in CODES:
            return CODES[family]
    return grpc.StatusCode.INTERNAL


def status_of(error: BaseException, *, request_id: str, trace_id: str) -> status_pb2.Status:
    """Describe an error to the caller.

    Of an unknown one the caller learns nothing but ``trace_id``, which finds it in the logs.
    """
    code = code_of(error)
    if not isinstance(error, BillingError) or code is grpc.StatusCode.INTERNAL:
        message = f"internal error; quote trace id {trace_id}"
        info = _error_info("INTERNAL", {"trace_id": trace_id}, request_id)
        return _status(grpc.StatusCode.INTERNAL, message, [info])
    details: list[Message] = [_error_info(error.reason, error.metadata, request_id)]
    if isinstance(error, Unavailable):
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = RETRY_DELAY_SECONDS
        details.append(retry)
    status = _status(code, error.message, details)
    _add_violations(status, _violations_of(error))
    return status


def _status(code: grpc.StatusCode, message: str, details: Iterable[Message]) -> status_pb2.Status:
    number, _ = code.value
    status = status_pb2.Status(code=number, message=_cut(message, _MAX_MESSAGE_BYTES))
    for detail in details:
        status.details.add().Pack(detail)
    return status


def _error_info(
    reason: str, metadata: Mapping[str, str], request_id: str
) -> error_details_pb2.ErrorInfo:
    shortened = {key: _cut(value, _MAX_VALUE_BYTES) for key, value in metadata.items()}
    return error_details_pb2.ErrorInfo(
        reason=reason, domain=ERROR_DOMAIN, metadata={**shortened, REQUEST_ID_KEY: request_id}
    )


def _violations_of(error: BillingError) -> tuple[FieldViolation, ...]:
    if isinstance(error, RequestInvalid):
        return error.violations
    if isinstance(error, InvalidInput):
        return (FieldViolation(error.field, error.description),)
    return ()


def _add_violations(status: status_pb2.Status, violations: tuple[FieldViolation, ...]) -> None:
    """Add as many as there is room for."""
    if not violations:
        return
    bad_request = error_details_pb2.BadRequest()
    room_bytes = _MAX_STATUS_BYTES - status.ByteSize()
    for violation in violations:
        added = bad_request.field_violations.add(
            field=_cut(violation.field, _MAX_VALUE_BYTES),
            description=_cut(violation.description, _MAX_VALUE_BYTES),
        )
        if bad_request.ByteSize() > room_bytes and len(bad_request.field_violations) > 1:
            bad_request.field_violations.remove(added)
            break
    status.details.add().Pack(bad_request)


def _cut(text: str, limit_bytes: int) -> str:
    encoded = text.encode()
    if len(encoded) <= limit_bytes:
        return text
    return encoded[:limit_bytes].decode(errors="ignore") + "…"
