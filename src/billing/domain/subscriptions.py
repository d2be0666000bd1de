"""Subscriptions and their states."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from billing.domain import identifiers
from billing.domain.errors import (
    SubscriptionAlreadyCancelled,
    SubscriptionCancelling,
    SubscriptionNotActive,
    SubscriptionNotPaused,
)


class SubscriptionStatus(StrEnum):
    """``active`` takes usage and is billed; ``paused`` does neither; ``cancelled`` is over."""

    ACTIVE = "active"
    PAUSED = "paused"
    CANCELLED = "cancelled"


class CancellationMode(StrEnum):
    """When a cancellation takes effect."""

    AT_PERIOD_END = "at_period_end"
    IMMEDIATELY = "immediately"


class CreditApplicationMode(StrEnum):
    """When usage consumes credits: when its period is billed, or as it arrives."""

    AT_BILLING = "at_billing"
    REALTIME = "realtime"


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a customer bought. The current period is the oldest one that is not billed."""

    id: UUID
    customer_id: str
    plan_id: UUID
    plan_version_id: UUID
    currency: str
    status: SubscriptionStatus
    started_at: datetime
    receivable_account_id: UUID
    current_period_id: UUID
    current_period_start: datetime
    current_period_end: datetime
    cancel_at: datetime | None
    paused_at: datetime | None
    cancelled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    # Answers are stored for ever, those from before there were credits too.
    credit_application: CreditApplicationMode = CreditApplicationMode.AT_BILLING

    @property
    def typeid(self) -> str:
        """The id as callers know it."""
        return identifiers.to_typeid(identifiers.SUBSCRIPTION, self.id)

    def require_active(self) -> None:
        """Raise SubscriptionNotActive unless the subscription is active."""
        if self.status is not SubscriptionStatus.ACTIVE:
            raise SubscriptionNotActive(subscription_id=self.typeid, status=self.status)

    def require_not_cancelling(self) -> None:
        """Raise SubscriptionCancelling if the end of the subscription is fixed."""
        if self.cancel_at is not None:
            raise SubscriptionCancelling(subscription_id=self.typeid, cancel_at=self.cancel_at)

    def require_paused(self) -> None:
        """Raise SubscriptionNotPaused unless the subscription is paused."""
        if self.status is not SubscriptionStatus.PAUSED:
            raise SubscriptionNotPaused(subscription_id=self.typeid, status=self.status)

    def require_not_cancelled(self) -> None:
        """Raise SubscriptionAlreadyCancelled if the subscription is over."""
        if self.status is SubscriptionStatus.CANCELLED:
            raise SubscriptionAlreadyCancelled(
                subscription_id=self.typeid, cancelled_at=self.cancelled_at
            )
