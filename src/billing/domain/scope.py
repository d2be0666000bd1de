"""The owner of data: nothing is read or written outside one scope."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """One tenant's live or test data."""

    tenant_id: str
    livemode: bool
