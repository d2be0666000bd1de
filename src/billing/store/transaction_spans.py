"""What a trace tells of a database transaction: one span, with an event for each statement.

Not a span for each: an event costs a third of one, and keeps the trace of a large billing run to a
size that trace stores take. Where nobody records the caller's trace, nothing is measured.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import asyncpg
import sqlalchemy as sa
from asyncpg.connection import LoggedQuery
from opentelemetry import trace
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.domain.errors import BillingError, DatabaseUnavailable
from billing.domain.scope import Scope

_TRACER: Final = trace.get_tracer(__name__)
_SPAN_NAME: Final = "transaction"
_SUMMARY_CHARACTERS: Final = 100
_COMMENT: Final = re.compile(r"^\s*--.*$", re.MULTILINE)


class TransactionSpan:
    """Counts and times the statements of one transaction, BEGIN and COMMIT excepted."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._count = 0
        self._seconds = 0.0
        self._started_at = 0.0

    @contextmanager
    def watching(
        self, connection: AsyncConnection, pg: "asyncpg.Connection[asyncpg.Record]"
    ) -> Iterator[None]:
        """Note every statement of the block; asyncpg does not tell of those that SQLAlchemy sends.

        What lies before the event BEGIN is the wait for a connection.
        """
        self._span.add_event("BEGIN")
        sa.event.listen(connection.sync_connection, "before_cursor_execute", self._note_start)
        sa.event.listen(connection.sync_connection, "after_cursor_execute", self._note_end)
        pg.add_query_logger(self._note_query)
        try:
            yield
        finally:
            pg.remove_query_logger(self._note_query)  # the connection lives on in the pool

    def end(self, error: BaseException | None) -> None:
        """End the span; a refusal of ours is no error of the database."""
        self._span.set_attributes(
            {
                "billing.transaction.committed": error is None,
                "billing.transaction.statements": self._count,
                "billing.transaction.statement_seconds": self._seconds,
            }
        )
        if error is not None:
            self._span.set_attribute("error.type", type(error).__qualname__)
            if isinstance(error, DatabaseUnavailable) or not isinstance(error, BillingError):
                self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()

    def _note_query(self, query: LoggedQuery) -> None:
        # asyncpg tells a moment later: of COMMIT, when the span has ended.
        if self._span.is_recording():
            self._note(query.query, query.elapsed)

    def _note_start(self, *_: Any) -> None:
        self._started_at = time.monotonic()

    def _note_end(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        self._note(statement, time.monotonic() - self._started_at)

    def _note(self, statement: str, seconds: float) -> None:
        self._count += 1
        self._seconds += seconds
        self._span.add_event(_summary(statement), {"seconds": seconds})


@contextmanager
def transaction_span(scope: Scope) -> Iterator[TransactionSpan | None]:
    """Begin a span below the current one and end it with the block; None if that is not recorded.

    It does not become the current span: what a transaction enqueues belongs to its use case.
    """
    if not trace.get_current_span().is_recording():
        yield None
        return
    span = TransactionSpan(
        _TRACER.start_span(
            _SPAN_NAME,
            kind=trace.SpanKind.CLIENT,
            attributes={
                "db.system.name": "postgresql",
                "billing.tenant_id": scope.tenant_id,
                "billing.livemode": scope.livemode,
            },
        )
    )
    try:
        yield span
    except BaseException as error:
        span.end(error)
        raise
    span.end(None)


@lru_cache(maxsize=1024)
def _summary(statement: str) -> str:
    """The beginning of a statement, which holds no values: those are its parameters."""
    return " ".join(_COMMENT.sub("", statement).split())[:_SUMMARY_CHARACTERS]
