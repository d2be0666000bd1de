"""Times of files: forms, zones, and hours that clocks show twice or never."""

from datetime import UTC

import pytest

from billing.caller.errors import OptionsInvalid
from billing.importer.errors import LineRejected
from billing.importer.options import Fold, TimeFormat
from billing.importer.times import TimeReader


def read(
    text: str,
    time_format: TimeFormat = TimeFormat.ISO,
    *,
    time_zone: str | None = None,
    fold: Fold | None = None,
) -> str:
    message = TimeReader(time_format, time_zone=time_zone, fold=fold).read(text)
    return message.ToDatetime(tzinfo=UTC).strftime("%FT%T.%f")


def reason_of(text: str, time_format: TimeFormat = TimeFormat.ISO, **how: str) -> str:
    with pytest.raises(LineRejected) as caught:
        read(text, time_format, time_zone=how.get("time_zone"))
    assert caught.value.message
    return caught.value.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2023-11-16T18:17:03Z", "2023-11-16T18:17:03.000000"),
        ("2023-11-16 18:17:03.9799600Z", "2023-11-16T18:17:03.979960"),
        ("2023-11-16t18:17:03.9999999+00:00", "2023-11-16T18:17:03.999999"),
        ("2023-11-16T18:17:03,5+02:00", "2023-11-16T16:17:03.500000"),
        ("20231116T181703-0530", "2023-11-16T23:47:03.000000"),
        ("2023-11-16T18:17+01", "2023-11-16T17:17:00.000000"),
        ("2023-11-16T18:17:03.123456789123Z", "2023-11-16T18:17:03.123456"),
    ],
)
def test_iso_times_with_a_zone(text: str, expected: str) -> None:
    assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2023-11-16 18:17:03.9799600", "UTC", "2023-11-16T18:17:03.979960"),
        ("2023-11-16 18:17:03", "Europe/Berlin", "2023-11-16T17:17:03.000000"),
        ("2023-07-16 18:17:03", "Europe/Berlin", "2023-07-16T16:17:03.000000"),
        ("2023-11-16", "Asia/Tokyo", "2023-11-15T15:00:00.000000"),
        ("2023-11-16T18:00:00Z", "Asia/Tokyo", "2023-11-16T18:00:00.000000"),
    ],
)
def test_naive_times_are_those_of_the_given_zone(text: str, zone: str, expected: str) -> None:
    assert read(text, time_zone=zone) == expected


def test_naive_times_without_a_zone_are_not_guessed() -> None:
    assert reason_of("2023-11-16 18:17:03") == "TIME_ZONE_MISSING"


@pytest.mark.parametrize(
    "text",
    [
        "16.11.2023",
        "2023-11-16-05:00",  # an offset without a time
        "2023-W46-4",
        "2023-13-01T00:00:00Z",
        "2023-11-16T25:00:00Z",
        "2023-11-16T23:59:60Z",
        "0001-01-01T00:00:00+14:00",  # before the first year
        "tomorrow",
        "",
        "9" * 5000,
    ],
)
def test_what_is_no_time_is_rejected(text: str) -> None:
    assert reason_of(text, time_zone="UTC") == "TIME_INVALID"


def test_an_hour_that_clocks_show_twice_needs_a_choice() -> None:
    text, berlin = "2026-10-25 02:30:00", "Europe/Berlin"
    assert reason_of(text, time_zone=berlin) == "TIME_AMBIGUOUS"
    assert read(text, time_zone=berlin, fold=Fold.EARLIER) == "2026-10-25T00:30:00.000000"
    assert read(text, time_zone=berlin, fold=Fold.LATER) == "2026-10-25T01:30:00.000000"


def test_an_hour_that_clocks_never_show_needs_a_choice() -> None:
    text, berlin = "2026-03-29 02:30:00", "Europe/Berlin"
    assert reason_of(text, time_zone=berlin) == "TIME_NONEXISTENT"
    assert read(text, time_zone=berlin, fold=Fold.EARLIER) == "2026-03-29T00:30:00.000000"
    assert read(text, time_zone=berlin, fold=Fold.LATER) == "2026-03-29T01:30:00.000000"


def test_the_message_of_a_choice_names_both_moments() -> None:
    with pytest.raises(LineRejected, match="earlier is 2026-10-25T00:30:00Z, later is"):
        read("2026-10-25 02:30:00", time_zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "time_format", "expected"),
    [
        ("1700158623", TimeFormat.EPOCH_SECONDS, "2023-11-16T18:17:03.000000"),
        ("1700158623.9799609", TimeFormat.EPOCH_SECONDS, "2023-11-16T18:17:03.979960"),
        (
            "1700158623.99999999999999999999999",
            TimeFormat.EPOCH_SECONDS,
            "2023-11-16T18:17:03.999999",
        ),
        ("1700158623979", TimeFormat.EPOCH_MILLIS, "2023-11-16T18:17:03.979000"),
        ("1700158623979.9609", TimeFormat.EPOCH_MILLIS, "2023-11-16T18:17:03.979960"),
    ],
)
def test_epochs(text: str, time_format: TimeFormat, expected: str) -> None:
    assert read(text, time_format) == expected


@pytest.mark.parametrize("text", ["1700158623979", "1e9", "0x10", "now", "", "NaN", "9" * 18])
def test_what_is_no_epoch_is_rejected(text: str) -> None:
    assert reason_of(text, TimeFormat.EPOCH_SECONDS) == "TIME_INVALID"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "/etc/passwd"])
def test_a_zone_must_exist(zone: str) -> None:
    with pytest.raises(OptionsInvalid, match="no such zone"):
        TimeReader(TimeFormat.ISO, time_zone=zone)
