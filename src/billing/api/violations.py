"""The rules in the contract (protovalidate), applied to messages."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message
from protovalidate import Validator, Violation

from billing.domain.errors import BillingError

_MAX_EXAMINED_BYTES: Final = 16 * 1024
_MAX_KEY_CHARACTERS: Final = 100
_validator: Final = Validator()  # keeps what it made of the rules of each message type


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A broken rule; ``field`` is the path in the message, for example ``events[3].quantity``."""

    field: str
    description: str


class RequestInvalid(BillingError):
    """Fields of the request break the contract's rules."""

    reason = "FIELD_INVALID"  # for programs the same as the domain's FieldInvalid

    def __init__(self, violations: tuple[FieldViolation, ...]) -> None:
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        where = f"{first.field}: " if first.field else ""
        super().__init__(f"{where}{first.description}{more}", field=first.field)
        self.violations = violations


def violations_of(message: Message) -> tuple[FieldViolation, ...]:
    """Return the rules that a message breaks; none if it is valid, only the first of a large one.

    A few bytes a broken item would otherwise cost kilobytes here.
    """
    violations = _validator.collect_violations(message, fail_fast=True)
    if violations and message.ByteSize() <= _MAX_EXAMINED_BYTES:
        violations = _validator.collect_violations(message)
    return tuple(
        FieldViolation(_path_of(violation), violation.proto.message or "is invalid")
        for violation in violations
    )


def require_valid(message: Message) -> None:
    """Raise RequestInvalid unless the message keeps all rules of the contract."""
    violations = violations_of(message)
    if violations:
        raise RequestInvalid(violations)


def _path_of(violation: Violation) -> str:
    """Return the path of the field that breaks a rule, for example ``events[3].quantity``."""
    # Its types say nothing of the elements, which are messages of another protobuf library.
    field: Any = violation.proto.field
    elements: Iterable[Any] = field.elements if field else ()
    path = ""
    for element in elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{_subscript_of(element.subscript)}]"
    return path


def _subscript_of(subscript: Any) -> str:
    if subscript.field != "string_key":
        return str(subscript.value).lower()
    key: str = subscript.value
    is_long = len(key) > _MAX_KEY_CHARACTERS
    return f'"{key[:_MAX_KEY_CHARACTERS]}…"' if is_long else f'"{key}"'
