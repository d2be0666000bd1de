"""Moments as a command line takes them."""

import re
from datetime import UTC, date, datetime, time
from typing import Final

from billing.caller.errors import OptionsInvalid

_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def moment_of(option: str, text: str | None) -> datetime | None:
    """Return a moment, of a date its beginning in UTC; raises OptionsInvalid."""
    if text is None:
        return None
    try:
        if _DATE.fullmatch(text):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise OptionsInvalid(
            f"{option} {text}: expected is a date such as 2026-03-01 or a time such as "
            f"2026-03-01T12:00:00Z ({error})"
        ) from None
    if moment.tzinfo is None:
        raise OptionsInvalid(
            f"{option} {text}: it does not say its time zone; end it with Z for UTC"
        )
    return moment
