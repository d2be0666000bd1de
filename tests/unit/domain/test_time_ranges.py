"""Moments as parts of a page's key."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from billing.domain.time_ranges import just_after, moment_key, moment_of_key


@pytest.mark.parametrize(
    "moment",
    [
        datetime.min.replace(tzinfo=UTC),
        datetime(2026, 3, 15, 12, 0, 0, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
)
def test_a_moment_comes_back_to_the_microsecond(moment: datetime) -> None:
    assert moment_of_key(moment_key(moment)) == moment


def test_later_moments_have_higher_keys() -> None:
    moment = datetime(2026, 3, 15, tzinfo=UTC)
    assert just_after(moment) - moment == timedelta(microseconds=1)
    assert moment_key(moment) < moment_key(just_after(moment))


@pytest.mark.parametrize("number", [2**128 - 1, 10**18])
def test_a_key_of_no_moment_is_refused(number: int) -> None:
    with pytest.raises(OverflowError):
        moment_of_key(UUID(int=number))
