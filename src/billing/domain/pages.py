"""Slices of lists, by keyset: the next page begins after the last row's key, whatever was added."""

from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """At most ``size`` rows that follow the row with the key ``after``."""

    size: int
    after: tuple[UUID, ...] | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows of a list, and the key that the next page follows; None on the last page."""

    items: tuple[T, ...]
    next_after: tuple[UUID, ...] | None
