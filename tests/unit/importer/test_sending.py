"""An import against a played service: batches, retries, refusals, resuming."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from billing.caller.errors import CallFailed, OptionsInvalid
from billing.importer.errors import ImportStopped
from billing.importer.options import MappingOptions
from billing.v1 import usage_pb2
from tests.factories.played_service import (
    ACCEPTED,
    CONFLICT,
    DUPLICATE,
    REJECTED,
    IngestAnswer,
    PlayedService,
    Refusal,
    accept_all,
    answer_of,
    played_service,
)
from tests.factories.usage_import import (
    METER_IDS,
    RememberingObserver,
    import_options,
    trace_mapping,
    write_trace,
)

Ingest = Callable[[usage_pb2.IngestUsageEventsRequest], IngestAnswer]


@pytest.fixture
def service() -> Iterator[PlayedService]:
    with played_service() as played:
        yield played


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "usage.csv"
    write_trace(path, 100)
    return path


def failing(times: int, refusal: Refusal) -> Ingest:
    """Refuse some calls, then accept."""
    left = [refusal] * times

    def ingest(request: usage_pb2.IngestUsageEventsRequest) -> IngestAnswer:
        return left.pop() if left else accept_all(request)

    return ingest


def test_all_lines_are_sent_in_batches_with_the_token(service: PlayedService, file: Path) -> None:
    summary = service.import_file(import_options(file, batch_size=30))
    assert summary.is_clean
    assert (summary.counts.lines, summary.counts.sent, summary.counts.accepted) == (100, 200, 200)
    assert [len(request.events) for request in service.requests] == [30] * 6 + [20]
    assert len(set(service.keys)) == 200
    assert {request.tenant_id for request in service.requests} == {"acme"}
    assert set(service.tokens) == {"Bearer t-1"}
    assert not Path(f"{file}.checkpoint").exists()
    assert not Path(f"{file}.rejected.jsonl").exists()


def test_an_odd_batch_never_takes_a_line_in_parts(service: PlayedService, file: Path) -> None:
    service.import_file(import_options(file, batch_size=31))
    assert {len(request.events) for request in service.requests[:-1]} == {30}


def test_the_events_of_a_subscription_come_in_the_order_of_the_file(
    service: PlayedService, tmp_path: Path
) -> None:
    file = tmp_path / "usage.csv"
    rows = [f"sub_01h455vb4pex5vsknk084sn{n % 9:03d},k-{n}" for n in range(400)]
    file.write_text("subscription_id,key\n" + "\n".join(rows))
    mapping = MappingOptions(
        constants={"event_timestamp": "2026-03-01T00:00:00Z", "one": "1"},
        meters=(("input_tokens", "one"),),
        key_column="key",
    )
    service.import_file(import_options(file, mapping=mapping, batch_size=20, concurrency=4))
    by_subscription: dict[str, list[int]] = {}
    for event in service.events:
        numbers = by_subscription.setdefault(event.subscription_id, [])
        numbers.append(int(event.idempotency_key.removeprefix("k-")))
    assert len(by_subscription) == 9
    assert all(numbers == sorted(numbers) for numbers in by_subscription.values())
    assert sum(map(len, by_subscription.values())) == 400
    for request in service.requests:  # and no subscription is in two calls of a window
        assert len(request.events) <= 20


def test_large_events_make_smaller_calls(service: PlayedService, tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    columns = [f"p{n}" for n in range(40)]
    text = ",".join(columns) + "\n" + f"{','.join(['x' * 1000] * 40)}\n" * 120
    file.write_text(text)
    mapping = trace_mapping(
        columns={},
        constants={
            "subscription_id": "sub_01h455vb4pex5vsknk084sn02q",
            "event_timestamp": "2026-03-01T00:00:00Z",
            "one": "1",
        },
        meters=(("input_tokens", "one"),),
        properties=tuple((name, name) for name in columns),
    )
    service.import_file(import_options(file, mapping=mapping))
    assert len(service.events) == 120
    assert all(request.ByteSize() < 3_000_000 for request in service.requests)
    assert len(service.requests) == 3


def test_meters_are_read_page_by_page(service: PlayedService, file: Path) -> None:
    service.meter_pages = [{code: meter_id} for code, meter_id in METER_IDS.items()]
    assert service.import_file(import_options(file)).is_clean
    assert service.page_tokens == ["", "after-1"]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    ],
)
def test_a_service_that_is_away_is_asked_again(
    service: PlayedService, file: Path, code: grpc.StatusCode
) -> None:
    service.ingest = failing(3, Refusal(code))
    service.meter_pages = [Refusal(code)]
    observer = RememberingObserver()
    summary = service.import_file(import_options(file, batch_size=50), observer=observer)
    assert summary.counts.accepted == 200
    assert len(service.requests) == 4 + 3
    assert len(observer.notices) == 4
    assert code.name in observer.notices[0]


def test_a_repeated_call_is_the_same_call(service: PlayedService, file: Path) -> None:
    service.ingest = failing(1, Refusal(grpc.StatusCode.UNAVAILABLE))
    service.import_file(import_options(file, batch_size=50))
    assert service.requests[0] == service.requests[1]


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (Refusal(grpc.StatusCode.UNAUTHENTICATED), "does not accept the token"),
        (Refusal(grpc.StatusCode.PERMISSION_DENIED), "token does not allow this"),
        (Refusal(grpc.StatusCode.INTERNAL, "quote trace id x"), "INTERNAL: quote trace id x"),
        (Refusal(grpc.StatusCode.UNAVAILABLE), "does not answer"),
        (
            Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many bytes", "MESSAGE_TOO_LARGE"),
            "use a smaller --batch-size",
        ),
    ],
)
def test_a_refused_call_stops_with_the_line_and_the_same_command_goes_on(
    service: PlayedService, file: Path, refusal: Refusal, text: str
) -> None:
    options = import_options(file, batch_size=50)
    service.ingest = lambda request: refusal if len(service.requests) > 2 else accept_all(request)
    with pytest.raises(ImportStopped, match=text) as caught:
        service.import_file(options)
    assert "All up to line 51 is acknowledged: the same command goes on" in str(caught.value)
    acknowledged = service.keys[:100]

    service.requests.clear()
    service.ingest = accept_all
    observer = RememberingObserver()
    summary = service.import_file(options, observer=observer)
    assert observer.notices == ["going on after line 51, the last acknowledged one"]
    assert set(acknowledged).isdisjoint(service.keys)
    assert (summary.counts.lines, summary.counts.sent, summary.counts.accepted) == (100, 200, 200)
    assert summary.new_events == 100
    assert not Path(f"{file}.checkpoint").exists()


@pytest.mark.parametrize(
    "refusal", [Refusal(grpc.StatusCode.UNAUTHENTICATED), Refusal(grpc.StatusCode.UNIMPLEMENTED)]
)
def test_nothing_is_sent_if_the_first_call_is_refused(
    service: PlayedService, file: Path, refusal: Refusal
) -> None:
    service.meter_pages = [refusal]
    with pytest.raises(CallFailed):
        service.import_file(import_options(file))
    assert service.requests == []


def test_an_answer_must_have_a_result_for_each_event(service: PlayedService, file: Path) -> None:
    service.ingest = lambda request: usage_pb2.IngestUsageEventsResponse()
    with pytest.raises(ImportStopped, match="0 results for 200 events"):
        service.import_file(import_options(file))


def test_rejections_of_both_sides_are_reported_in_the_order_of_the_file(
    service: PlayedService, file: Path
) -> None:
    lines = file.read_text().splitlines()
    lines[3] = "yesterday,1,2"
    lines[60] = "2023-11-16 18:17:03,1"
    file.write_text("\n".join(lines))
    refused = iter(range(1, 10_000))

    def result_of(event: usage_pb2.UsageEventInput) -> usage_pb2.UsageEventResult:
        number = next(refused)
        if number == 2:
            return usage_pb2.UsageEventResult(
                outcome=REJECTED, reason="USAGE_METER_NOT_PRICED", message="m"
            )
        if number == 9:
            return usage_pb2.UsageEventResult(
                outcome=CONFLICT,
                reason="KEY_REUSED",
                message="c",
                usage_event_id="usage_1",
            )
        return usage_pb2.UsageEventResult(outcome=DUPLICATE if number > 100 else ACCEPTED)

    service.ingest = lambda request: answer_of(request, result_of)
    summary = service.import_file(import_options(file, batch_size=50))
    counts = summary.counts
    assert not summary.is_clean
    assert (counts.lines, counts.sent) == (100, 196)
    assert counts.accepted + counts.duplicate + counts.conflict == 195
    assert counts.duplicate == 96
    assert dict(counts.rejected) == {
        "USAGE_METER_NOT_PRICED": 1,
        "TIME_INVALID": 1,
        "COLUMN_COUNT_WRONG": 1,
    }
    report = Path(f"{file}.rejected.jsonl")
    assert summary.report == report
    entries: list[dict[str, Any]] = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(e["line"], e["outcome"], e["reason"]) for e in entries] == [
        (2, "rejected", "USAGE_METER_NOT_PRICED"),
        (4, "rejected", "TIME_INVALID"),
        (7, "conflict", "KEY_REUSED"),
        (61, "rejected", "COLUMN_COUNT_WRONG"),
    ]
    assert entries[0]["usage_meter"] == "output_tokens"
    assert entries[0]["fields"]["TIMESTAMP"] == lines[1].split(",")[0]
    assert entries[2]["usage_event_id"] == "usage_1"
    assert [r.line.number for r in summary.first_rejections] == [2, 4, 7, 61]


def test_a_file_of_nothing_but_rejections_keeps_little_in_memory(
    service: PlayedService, tmp_path: Path
) -> None:
    file = tmp_path / "usage.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "x,1,1\n" * 2_500)
    observer = RememberingObserver()
    summary = service.import_file(import_options(file), observer=observer)
    assert summary.counts.rejected["TIME_INVALID"] == 2_500
    assert service.requests == []
    assert len(observer.bytes_read) == 3


def test_a_mapping_that_does_not_fit_sends_nothing(service: PlayedService, file: Path) -> None:
    with pytest.raises(OptionsInvalid, match="no column 'Tokens'"):
        service.import_file(
            import_options(file, mapping=trace_mapping(meters=(("input_tokens", "Tokens"),))),
        )
    with pytest.raises(OptionsInvalid, match="no usage meter 'tokens'"):
        service.import_file(
            import_options(file, mapping=trace_mapping(meters=(("tokens", "ContextTokens"),))),
        )
    assert service.requests == []
