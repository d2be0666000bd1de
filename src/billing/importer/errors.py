"""What stops an import, and what keeps one line out of it."""

from billing.caller.errors import CallerFailed

ImportFailed = CallerFailed
"""What stops an import is what stops any command that calls the service, and the errors below."""


class SourceUnreadable(ImportFailed):
    """The input cannot be opened, or not be read any further."""


class CheckpointMismatched(ImportFailed):
    """The checkpoint is of another import, or the lines that it covers have changed."""


class ImportStopped(ImportFailed):
    """The import ended before the end of its input; what was acknowledged stays."""


class LineRejected(Exception):
    """A line that no events can be made of, with a stable reason and a message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
