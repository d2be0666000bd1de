"""What stops a command that calls the service."""


class CallerFailed(Exception):
    """Base of all that stops such a command; the text says what to do."""


class OptionsInvalid(CallerFailed):
    """The options, or what they name, cannot be used; nothing was sent."""


class CallFailed(CallerFailed):
    """The service refuses a call as a whole, or does not answer for too long."""
