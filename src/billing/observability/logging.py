"""Log lines on stderr, one format for our own and for those of libraries."""

import logging
import sys
from typing import Final

import structlog
from structlog.typing import Processor

# Also run for lines that reach us through the standard library: pgqueuer's, Alembic's, grpc's.
_SHARED: Final[tuple[Processor, ...]] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ExtraAdder(),
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
)


def configure_logging(*, level: str, log_format: str) -> None:
    """Send all lines of ``level`` ("info") and above to stderr, as "json" or for a "console".

    For the whole process; called again, it replaces what it did before.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,  # loggers of modules outlive a second configuration
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(log_format))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())


def _formatter(log_format: str) -> structlog.stdlib.ProcessorFormatter:
    # Plain tracebacks: the others write local variables, tokens among them.
    rendering: tuple[Processor, ...] = (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        ),
    )
    if log_format == "json":
        rendering = (structlog.processors.format_exc_info, structlog.processors.JSONRenderer())
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
    )
