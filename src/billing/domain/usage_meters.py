"""Aggregated usage as callers see it: by meter and billing period, with what credits paid of it."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from billing.domain.periods import BillingPeriodStatus
from billing.domain.subscriptions import Subscription


class SubscriptionUsageMeterStatus(StrEnum):
    """How far the usage of a period got; ``closed`` is invoiced, or had nothing to invoice."""

    OPEN = "open"
    BILLED = "billed"
    CLOSED = "closed"

    @property
    def period_status(self) -> BillingPeriodStatus:
        """The same of the billing period."""
        return _PERIOD_STATUSES[self]

    @classmethod
    def of_period(cls, status: BillingPeriodStatus) -> "SubscriptionUsageMeterStatus":
        """Return the status that goes with a billing period's."""
        return next(own for own, of_period in _PERIOD_STATUSES.items() if of_period is status)


_PERIOD_STATUSES = {
    SubscriptionUsageMeterStatus.OPEN: BillingPeriodStatus.OPEN,
    SubscriptionUsageMeterStatus.BILLED: BillingPeriodStatus.BILLED,
    SubscriptionUsageMeterStatus.CLOSED: BillingPeriodStatus.INVOICED,
}


@dataclass(frozen=True, slots=True)
class SubscriptionUsageMeter:
    """The usage of one component of a subscription in one billing period, in minor units."""

    id: UUID
    subscription_id: UUID
    usage_meter_id: UUID
    usage_meter_name: str
    component_id: UUID
    billing_period_id: UUID
    period_start: datetime
    period_end: datetime
    status: SubscriptionUsageMeterStatus
    total_quantity: Decimal
    event_count: int
    total_raw_usage_minor: int
    credits_applied_minor: int
    currency: str
    updated_at: datetime
    pending_quantity: Decimal
    pending_minor: int

    @property
    def net_billed_minor(self) -> int:
        """Raw usage less credits."""
        return self.total_raw_usage_minor - self.credits_applied_minor


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """The usage of one component in the current billing period, in minor units."""

    usage_meter_id: UUID
    usage_meter_name: str
    component_id: UUID
    total_quantity: Decimal
    total_raw_usage_minor: int
    credits_applied_minor: int

    @property
    def net_billed_minor(self) -> int:
        """Raw usage less credits."""
        return self.total_raw_usage_minor - self.credits_applied_minor


@dataclass(frozen=True, slots=True)
class SubscriptionOverview:
    """A subscription with its current usage and its spendable credits, in minor units."""

    subscription: Subscription
    usage: tuple[UsageSummary, ...]
    available_credit_minor: int
    credit_count: int
