"""Values that every noun has: ids, decimals, times, enums; and the digest of a request."""

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Generic, Protocol, TypeVar
from uuid import UUID

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.decimal_pb2 import Decimal as DecimalMessage

from billing.domain import identifiers
from billing.domain.errors import FieldInvalid
from billing.domain.money import plain
from billing.domain.time_ranges import TimeRange
from billing.services.idempotency import IdempotentRequest

_PLAIN_DECIMAL: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,12})?", re.ASCII)
_INFINITIES: Final = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
"""The database's driver stores these two as infinity, and gives them back without a zone."""

E = TypeVar("E", bound=StrEnum)


class ProtoEnum(Protocol):
    """A proto enum, as far as it is needed here."""

    def Value(self, name: str) -> Any:
        """Return the number of a name."""
        ...


class EnumConverter(Generic[E]):
    """Joins a domain enum with a proto enum: ``PREFIX_NAME`` is ``NAME``."""

    def __init__(self, proto: ProtoEnum, prefix: str, members: type[E]) -> None:
        self._to_proto = {member: proto.Value(f"{prefix}_{member.name}") for member in members}
        self._from_proto = {number: member for member, number in self._to_proto.items()}

    def encode(self, member: E) -> Any:
        """Return the proto number."""
        return self._to_proto[member]

    def decode(self, number: int) -> E:
        """Return the member; validation has refused numbers that are none."""
        return self._from_proto[number]

    def decode_filter(self, number: int) -> E | None:
        """Return the member, or None for UNSPECIFIED: no filter."""
        return self._from_proto.get(number)

    def decode_or(self, number: int, default: E) -> E:
        """Return the member, or the default for UNSPECIFIED."""
        return self._from_proto.get(number, default)


def decode_id(prefix: str, text: str, field: str) -> UUID:
    """Return the UUID of a TypeID; raises FieldInvalid."""
    try:
        return identifiers.from_typeid(prefix, text)
    except identifiers.MalformedId:
        raise FieldInvalid(field, f"{text!r} is no id of the form {prefix}_...") from None


def decode_optional_id(prefix: str, text: str, field: str) -> UUID | None:
    """Return the UUID of a TypeID, None for an empty text; raises FieldInvalid."""
    return decode_id(prefix, text, field) if text else None


def encode_optional_id(prefix: str, value: UUID | None) -> str:
    """Return the TypeID, empty for None."""
    return identifiers.to_typeid(prefix, value) if value is not None else ""


def decode_decimal(message: DecimalMessage, field: str) -> Decimal:
    """Return a plain decimal of zero or more; raises FieldInvalid."""
    if _PLAIN_DECIMAL.fullmatch(message.value) is None:
        raise FieldInvalid(
            field,
            f"{message.value[:40]!r} is no plain decimal of 0 or more with up to 18 digits before "
            "and 12 after the point",
        )
    return Decimal(message.value)


def encode_decimal(value: Decimal) -> DecimalMessage:
    """Return the message of a decimal, without exponent."""
    return DecimalMessage(value=plain(value))


def decode_time(message: Timestamp, field: str) -> datetime:
    """Return the moment in UTC, to the microsecond; raises FieldInvalid."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise FieldInvalid(
            field, f"{message.seconds} s {message.nanos} ns is no moment of the years 1 to 9999"
        ) from None


def decode_optional_time(message: Message, field: str) -> datetime | None:
    """Return the moment in a field of a message, None if it is unset; raises FieldInvalid."""
    return decode_time(getattr(message, field), field) if message.HasField(field) else None


def decode_time_range(message: Message, start_field: str, end_field: str) -> TimeRange:
    """Return the half-open span of two fields; raises FieldInvalid if it ends before it starts."""
    start = decode_optional_time(message, start_field)
    end = decode_optional_time(message, end_field)
    if start is not None and end is not None and start > end:
        raise FieldInvalid(
            start_field, f"{start.isoformat()} lies after {end_field}, {end.isoformat()}"
        )
    return TimeRange(start, end)


def decode_stored_time(message: Message, field: str) -> datetime | None:
    """Return a moment that is kept, None if it is unset; raises FieldInvalid also for infinity."""
    moment = decode_optional_time(message, field)
    if moment in _INFINITIES:
        raise FieldInvalid(field, f"{moment.isoformat()} is no moment that can be kept")
    return moment


def encode_time(moment: datetime | None) -> Timestamp | None:
    """Return the message of a moment; None stays unset."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def idempotent_request(
    request: Message, method: str, *, ignored_fields: Sequence[str] = ()
) -> IdempotentRequest | None:
    """Return the request's identity, None without a request_id.

    The digest covers everything but ``ignored_fields``, which do not change what is asked for.
    """
    request_id: str = getattr(request, "request_id", "")
    if not request_id:
        return None
    content = type(request)()
    content.CopyFrom(request)
    for field in ignored_fields:
        content.ClearField(field)
    digest = hashlib.sha256(content.SerializeToString(deterministic=True)).digest()
    return IdempotentRequest(method, request_id, digest)
