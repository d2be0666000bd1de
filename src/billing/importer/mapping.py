"""From a line's columns to the events that it stands for: all of them, or none."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from protovalidate import Validator

from billing.caller.errors import OptionsInvalid
from billing.domain.money import plain
from billing.importer.errors import LineRejected
from billing.importer.keys import ContentKeys
from billing.importer.options import (
    EVENT_TIMESTAMP,
    QUANTITY,
    SUBSCRIPTION_ID,
    USAGE_METER_ID,
    MappingOptions,
)
from billing.importer.source import SourceLine
from billing.importer.times import TimeReader
from billing.v1 import usage_pb2

_PLAIN: Final = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,12})?", re.ASCII)
_NUMBER: Final = re.compile(r"\+?(?:\d{1,40}\.?\d{0,40}|\.\d{1,40})(?:[eE][+-]?\d{1,2})?", re.ASCII)
_validator: Final = Validator()


@dataclass(frozen=True, slots=True)
class PlannedEvent:
    """An event to send, and where it comes from."""

    line: SourceLine
    meter_code: str
    message: usage_pb2.UsageEventInput


class MeterDirectory:
    """The tenant's meters; finds one by its code or id."""

    def __init__(self, ids_by_code: Mapping[str, str]) -> None:
        self._ids = dict(ids_by_code)
        self._codes = {meter_id: code for code, meter_id in ids_by_code.items()}

    def find(self, code_or_id: str) -> tuple[str, str] | None:
        """Return the code and id of a meter."""
        if code_or_id in self._codes:
            return self._codes[code_or_id], code_or_id
        if code_or_id in self._ids:
            return code_or_id, self._ids[code_or_id]
        return None

    def get(self, code_or_id: str) -> tuple[str, str]:
        """Return the code and id of a meter; raises OptionsInvalid."""
        found = self.find(code_or_id)
        if found is None:
            known = ", ".join(list(self._ids)[:20]) or "none"
            raise OptionsInvalid(f"the tenant has no usage meter {code_or_id!r}; it has: {known}")
        return found

    def identity(self) -> str:
        """Return an id that no other tenant, mode or database has; raises OptionsInvalid."""
        for meter_id in self._codes:
            return meter_id
        raise OptionsInvalid("the tenant has no usage meters (in the mode of the token)")


class LineMapper:
    """Makes the events of each line, in the order of the file: keys count equal lines."""

    def __init__(self, options: MappingOptions, meters: MeterDirectory) -> None:
        """Raises OptionsInvalid for a meter or time zone that does not exist."""
        self._options = options
        self._meters = meters
        self._quantities = [(meters.get(meter), column) for meter, column in options.meters]
        codes = [code for (code, _), _ in self._quantities]
        if len(set(codes)) < len(codes):
            raise OptionsInvalid("--meter: one meter is named twice, by its code and by its id")
        self._times = TimeReader(
            options.time_format, time_zone=options.time_zone, fold=options.fold
        )
        self._content_keys = ContentKeys() if options.key_column is None else None
        self.most_events_of_a_line = max(1, len(self._quantities))

    def skip(self, line: SourceLine) -> None:
        """Count a line whose events were acknowledged before."""
        if self._content_keys is not None and line.fields is not None:
            self._content_keys.key_of({**line.fields, **self._options.constants})

    def events_of(self, line: SourceLine) -> list[PlannedEvent]:
        """Return the line's events; raises LineRejected, and none of them is to be sent then.

        All or none: a line that is mended has another content, and so other keys.
        """
        if line.fields is None:
            assert line.rejection is not None, "a line without columns says why"
            raise line.rejection
        columns = {**line.fields, **self._options.constants}
        key = self._key_of(columns)
        quantities = self._quantities or [self._named_meter(columns)]
        common = self._common(columns)
        appends_code = self._content_keys is not None or len(quantities) > 1
        events = []
        for (code, meter_id), column in quantities:
            message = usage_pb2.UsageEventInput()
            message.CopyFrom(common)
            message.idempotency_key = f"{key}:{code}" if appends_code else key
            message.usage_meter_id = meter_id
            message.quantity.value = _quantity(columns, column)
            _require_valid(message)
            events.append(PlannedEvent(line, code, message))
        return events

    def _key_of(self, columns: Mapping[str, Any]) -> str:
        if self._content_keys is not None:
            return self._content_keys.key_of(columns)
        assert self._options.key_column is not None, "keys come from content or from a column"
        return _text(columns, self._options.key_column)

    def _named_meter(self, columns: Mapping[str, Any]) -> tuple[tuple[str, str], str]:
        """Return the meter that the line itself names."""
        name = _text(columns, self._options.column_of(USAGE_METER_ID))
        meter = self._meters.find(name)
        if meter is None:
            raise LineRejected(
                "USAGE_METER_NOT_FOUND", f"the tenant has no usage meter {name[:80]!r}"
            )
        return meter, self._options.column_of(QUANTITY)

    def _common(self, columns: Mapping[str, Any]) -> usage_pb2.UsageEventInput:
        """Return what the events of a line share."""
        options = self._options
        moment = self._times.read(_text(columns, options.column_of(EVENT_TIMESTAMP)))
        try:
            return usage_pb2.UsageEventInput(
                subscription_id=_text(columns, options.column_of(SUBSCRIPTION_ID)),
                event_timestamp=moment,
                properties={
                    name: _text(columns, column, may_be_empty=True)
                    for name, column in options.properties
                },
            )
        except UnicodeEncodeError as error:  # a lone surrogate, escaped in JSON
            raise LineRejected("ENCODING_INVALID", f"a text is no Unicode: {error}") from None


def _text(columns: Mapping[str, Any], column: str, *, may_be_empty: bool = False) -> str:
    """Return a column's text without the spaces around it; raises LineRejected."""
    value = columns.get(column)
    if value is None and not (may_be_empty and column in columns):
        raise LineRejected("COLUMN_MISSING", f"it has no {column!r}")
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, dict | list):
        raise LineRejected("COLUMN_INVALID", f"{column!r} is an object or a list")
    text = str(value).strip() if value is not None else ""
    if not text and not may_be_empty:
        raise LineRejected("COLUMN_EMPTY", f"{column!r} is empty")
    return text


def _quantity(columns: Mapping[str, Any], column: str) -> str:
    """Return a quantity as the contract writes it: ``1e3`` as ``1000``; raises LineRejected."""
    text = _text(columns, column)
    if _PLAIN.fullmatch(text):
        return text
    if _NUMBER.fullmatch(text):
        text = plain(Decimal(text))
        if _PLAIN.fullmatch(text):
            return text
    raise LineRejected(
        "QUANTITY_INVALID",
        f"{column!r} is {text[:60]!r}: expected is a number of 0 or more, with up to 18 digits "
        "before and 12 after the point and nothing between them",
    )


def _require_valid(message: usage_pb2.UsageEventInput) -> None:
    """Apply the contract's own rules here, so that a line is taken as a whole or not at all."""
    violations = _validator.collect_violations(message)
    if violations:
        problems = "; ".join(f"{_field_of(v)}: {v.proto.message}" for v in violations)
        raise LineRejected("FIELD_INVALID", problems)


def _field_of(violation: Any) -> str:
    elements = violation.proto.field.elements
    return str(elements[0].field_name) if elements else "event"
