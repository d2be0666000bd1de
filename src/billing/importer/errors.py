"""What stops an import, and what keeps one line out of it."""


class ImportFailed(Exception):
    """Base of all that stops an import; the text says what to do."""


class OptionsInvalid(ImportFailed):
    """The options, or what they name, cannot be used; nothing was sent."""


class SourceUnreadable(ImportFailed):
    """The input cannot be opened, or not be read any further."""


class CheckpointMismatched(ImportFailed):
    """The checkpoint is of another import, or the lines that it covers have changed."""


class CallFailed(ImportFailed):
    """The service refuses a call as a whole, or does not answer for too long."""


class ImportStopped(ImportFailed):
    """The import ended before the end of its input; what was acknowledged stays."""


class LineRejected(Exception):
    """A line that no events can be made of, with a stable reason and a message for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
