"""Log lines: one format for all, on stderr."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from billing.observability.logging import configure_logging


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """Configuring logs is for a whole process, so what it was before comes back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    structlog.contextvars.clear_contextvars()
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_lines_of_ours_and_of_libraries_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level="info", log_format="json")
    structlog.contextvars.bind_contextvars(request_id="request-1")
    structlog.get_logger("billing.test").info("invoiced", count=2)
    logging.getLogger("alembic.runtime").warning("slow %s", "migration", extra={"seconds": 3})
    logging.getLogger("pgqueuer").debug("not shown")
    ours, theirs = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (ours["event"], ours["count"]) == ("invoiced", 2)
    assert (ours["level"], ours["logger"]) == ("info", "billing.test")
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["seconds"]) == ("slow migration", 3)
    assert (theirs["level"], theirs["logger"]) == ("warning", "alembic.runtime")
    assert ours["request_id"] == theirs["request_id"] == "request-1"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_tracebacks_tell_no_values(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging(level="info", log_format=log_format)
    token = "hunter" + "2"
    try:
        _ = 1 // len(token[9:])
    except ZeroDivisionError:
        structlog.get_logger().exception("failed")
    written = capsys.readouterr().err
    assert "ZeroDivisionError" in written
    assert "hunter2" not in written


def test_a_second_configuration_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger()
    configure_logging(level="info", log_format="json")
    log.info("once")
    configure_logging(level="error", log_format="json")
    log.info("not shown")
    log.error("twice")
    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == [
        "once",
        "twice",
    ]
