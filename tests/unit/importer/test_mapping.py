"""From columns to events: fields, constants, several meters, properties, rejections."""

from collections.abc import Mapping
from typing import Any

import pytest

from billing.caller.errors import OptionsInvalid
from billing.importer.errors import LineRejected
from billing.importer.mapping import LineMapper, MeterDirectory, PlannedEvent
from billing.importer.options import MappingOptions
from billing.importer.source import SourceLine
from tests.factories.usage_import import METER_IDS, OTHER_SUBSCRIPTION, SUBSCRIPTION, trace_mapping

METERS = MeterDirectory(METER_IDS)
ROW = {"TIMESTAMP": "2023-11-16 18:17:03.9799600", "ContextTokens": "4808", "GeneratedTokens": "10"}
PLAIN_ROW = {
    "subscription_id": SUBSCRIPTION,
    "event_timestamp": "2023-11-16T18:17:03Z",
    "usage_meter_id": "input_tokens",
    "quantity": "1.5",
    "Region": " eu-west ",
    "id": "k-1",
}


def events_of(options: MappingOptions, fields: Mapping[str, Any]) -> list[PlannedEvent]:
    return LineMapper(options, METERS).events_of(SourceLine(2, fields))


def reason_of(options: MappingOptions, fields: Mapping[str, Any]) -> str:
    with pytest.raises(LineRejected) as caught:
        events_of(options, fields)
    return caught.value.reason


def test_several_meters_from_one_row() -> None:
    first, second = events_of(trace_mapping(), ROW)
    assert (first.meter_code, first.message.usage_meter_id) == (
        "input_tokens",
        METER_IDS["input_tokens"],
    )
    assert first.message.subscription_id == SUBSCRIPTION
    assert first.message.quantity.value == "4808"
    assert first.message.event_timestamp.ToJsonString() == "2023-11-16T18:17:03.979960Z"
    assert second.message.quantity.value == "10"
    assert second.message.usage_meter_id == METER_IDS["output_tokens"]
    assert first.message.idempotency_key.endswith(":1:input_tokens")
    assert second.message.idempotency_key.endswith(":1:output_tokens")


def test_a_meter_may_be_named_by_its_id_and_the_key_is_the_same() -> None:
    by_id = trace_mapping(
        meters=tuple((METER_IDS[code], column) for code, column in trace_mapping().meters)
    )
    keys = [event.message.idempotency_key for event in events_of(trace_mapping(), ROW)]
    assert [event.message.idempotency_key for event in events_of(by_id, ROW)] == keys


def test_without_mapping_columns_have_the_names_of_the_fields() -> None:
    [event] = events_of(MappingOptions(), PLAIN_ROW)
    assert event.message.subscription_id == SUBSCRIPTION
    assert event.message.usage_meter_id == METER_IDS["input_tokens"]
    assert event.message.quantity.value == "1.5"


def test_a_line_may_name_its_meter_by_id() -> None:
    row = {**PLAIN_ROW, "usage_meter_id": METER_IDS["output_tokens"]}
    [event] = events_of(MappingOptions(), row)
    assert event.meter_code == "output_tokens"


def test_a_constant_is_a_column_of_every_line_and_wins() -> None:
    options = MappingOptions(
        constants={"subscription_id": OTHER_SUBSCRIPTION, "one": "1"},
        meters=(("input_tokens", "one"),),
    )
    [event] = events_of(options, PLAIN_ROW)
    assert event.message.subscription_id == OTHER_SUBSCRIPTION
    assert event.message.quantity.value == "1"


def test_constants_tell_equal_lines_of_two_files_apart() -> None:
    def key_of(host: str) -> str:
        options = trace_mapping(
            constants={"subscription_id": SUBSCRIPTION, "host": host},
        )
        return events_of(options, ROW)[0].message.idempotency_key

    assert key_of("web-1") == key_of("web-1") != key_of("web-2")


def test_properties_come_from_columns() -> None:
    options = MappingOptions(properties=(("region", "Region"), ("request", "id")))
    [event] = events_of(options, PLAIN_ROW)
    assert dict(event.message.properties) == {"region": "eu-west", "request": "k-1"}


def test_an_empty_property_is_kept_and_a_json_value_is_told() -> None:
    options = MappingOptions(properties=(("region", "Region"),))
    for value, text in (("", ""), (None, ""), (True, "true"), (False, "false")):
        [event] = events_of(options, {**PLAIN_ROW, "Region": value})
        assert dict(event.message.properties) == {"region": text}
    assert reason_of(options, {**PLAIN_ROW, "Region": {"a": "b"}}) == "COLUMN_INVALID"


def test_a_key_column_is_the_key_and_takes_the_code_only_for_several_meters() -> None:
    [event] = events_of(MappingOptions(key_column="id"), PLAIN_ROW)
    assert event.message.idempotency_key == "k-1"
    events = events_of(trace_mapping(key_column="id"), {**ROW, "id": "k-1"})
    assert [event.message.idempotency_key for event in events] == [
        "k-1:input_tokens",
        "k-1:output_tokens",
    ]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("0", "0"),
        (" 12.50 ", "12.50"),
        ("+5", "5"),
        (".5", "0.5"),
        ("5.", "5"),
        ("1e3", "1000"),
        ("1.5E-3", "0.0015"),
        ("1.0000000000000000", "1"),
        ("0.0000000000000", "0"),
    ],
)
def test_quantities_are_sent_as_plain_decimals(written: str, sent: str) -> None:
    [event] = events_of(MappingOptions(), {**PLAIN_ROW, "quantity": written})
    assert event.message.quantity.value == sent


@pytest.mark.parametrize(
    "written", ["-1", "1,000", "1_000", "x", "NaN", "Infinity", "1e99", "1e-13", "1e999999999", "٣"]
)
def test_what_is_no_quantity_rejects_the_line(written: str) -> None:
    assert reason_of(MappingOptions(), {**PLAIN_ROW, "quantity": written}) == "QUANTITY_INVALID"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subscription_id": "cus-1"}, "FIELD_INVALID"),
        ({"subscription_id": ""}, "COLUMN_EMPTY"),
        ({"quantity": None}, "COLUMN_MISSING"),
        ({"event_timestamp": "yesterday"}, "TIME_INVALID"),
        ({"usage_meter_id": "tokens"}, "USAGE_METER_NOT_FOUND"),
        ({"id": "k" * 256}, "FIELD_INVALID"),
        ({"id": ""}, "COLUMN_EMPTY"),
        ({"Region": "r" * 1025}, "FIELD_INVALID"),
        ({"Region": "\ud800"}, "ENCODING_INVALID"),
    ],
)
def test_a_line_is_rejected_with_the_reason(change: dict[str, Any], reason: str) -> None:
    options = MappingOptions(properties=(("region", "Region"),), key_column="id")
    assert reason_of(options, {**PLAIN_ROW, **change}) == reason


def test_the_contract_rules_are_told_with_their_field() -> None:
    with pytest.raises(LineRejected, match=r"^subscription_id: "):
        events_of(MappingOptions(), {**PLAIN_ROW, "subscription_id": "cus-1"})


def test_a_json_line_without_a_column_is_rejected() -> None:
    row = {name: value for name, value in PLAIN_ROW.items() if name != "quantity"}
    assert reason_of(MappingOptions(), row) == "COLUMN_MISSING"


def test_a_row_is_taken_as_a_whole_or_not_at_all() -> None:
    assert reason_of(trace_mapping(), {**ROW, "GeneratedTokens": "?"}) == "QUANTITY_INVALID"


def test_skipped_lines_are_counted_as_if_they_were_sent() -> None:
    whole, resumed = LineMapper(trace_mapping(), METERS), LineMapper(trace_mapping(), METERS)
    line = SourceLine(2, ROW)
    whole.events_of(line)
    resumed.skip(line)
    assert resumed.events_of(line) == whole.events_of(line)


def test_meters_must_exist_and_be_named_once() -> None:
    with pytest.raises(OptionsInvalid, match="no usage meter 'tokens'; it has: input_tokens"):
        LineMapper(trace_mapping(meters=(("tokens", "ContextTokens"),)), METERS)
    twice = (("input_tokens", "a"), (METER_IDS["input_tokens"], "b"))
    with pytest.raises(OptionsInvalid, match="named twice"):
        LineMapper(trace_mapping(meters=twice), METERS)
    with pytest.raises(OptionsInvalid, match="no usage meters"):
        MeterDirectory({}).identity()
