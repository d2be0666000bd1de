"""Billing runs and their results."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from billing.domain import identifiers


class BillingRunType(StrEnum):
    """What started a run."""

    SCHEDULED = "scheduled"
    MANUAL = "manual"
    SINGLE = "single"


class BillingRunStatus(StrEnum):
    """``failed`` means that at least one result failed."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class BillingRunResultStatus(StrEnum):
    """``skipped`` means that another run has the period."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class BillingRun:
    """One execution of billing, with the counts of its results."""

    id: UUID
    run_type: BillingRunType
    status: BillingRunStatus
    as_of: datetime
    started_at: datetime
    completed_at: datetime | None
    succeeded_count: int
    failed_count: int
    skipped_count: int
    pending_count: int

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.BILLING_RUN, self.id)

    @property
    def processed_count(self) -> int:
        """Results that are no longer pending."""
        return self.succeeded_count + self.failed_count + self.skipped_count


@dataclass(frozen=True, slots=True)
class BillingRunResult:
    """The outcome of one (subscription, billing period) in a run."""

    id: UUID
    run_id: UUID
    subscription_id: UUID
    billing_period_id: UUID
    period_start: datetime
    period_end: datetime
    status: BillingRunResultStatus
    total_minor: int
    currency: str
    invoice_id: str | None
    calculation_run_id: UUID | None
    error_reason: str | None
    error_message: str | None
    taken_by_run_id: UUID | None
    completed_at: datetime | None
