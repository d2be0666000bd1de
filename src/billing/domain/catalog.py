"""Usage meters, plans and their published versions."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID


class UsageAggregation(StrEnum):
    """How the events of a meter become the quantity of a period."""

    SUM = "sum"


class IntervalUnit(StrEnum):
    """The unit of a billing interval."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


@dataclass(frozen=True, slots=True)
class BillingInterval:
    """The length of a billing period."""

    unit: IntervalUnit
    count: int


@dataclass(frozen=True, slots=True)
class UsageMeter:
    """What is measured, and how it is aggregated."""

    id: UUID
    code: str
    name: str
    aggregation: UsageAggregation
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ComponentTerms:
    """A metered price, before it is published. ``unit_price`` is in minor units a unit."""

    usage_meter_id: UUID
    name: str
    unit_price: Decimal
    included_units: Decimal


@dataclass(frozen=True, slots=True)
class Component:
    """One metered price of a plan version. ``unit_price`` is in minor units a unit."""

    id: UUID
    usage_meter_id: UUID
    name: str
    unit_price: Decimal
    included_units: Decimal


class LateUsagePolicy(StrEnum):
    """What becomes of usage of a period that is billed already.

    Either it counts in the oldest open period, or it is held until a recalculation takes it in.
    """

    OPEN_PERIOD = "open_period"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class PlanTerms:
    """The content of a plan version, before it is published."""

    name: str
    base_price_minor: int
    interval: BillingInterval
    components: tuple[ComponentTerms, ...]
    late_usage_policy: LateUsagePolicy = LateUsagePolicy.OPEN_PERIOD


@dataclass(frozen=True, slots=True)
class PlanVersion:
    """One published, unchangeable state of a plan."""

    id: UUID
    plan_id: UUID
    version: int
    name: str
    base_price_minor: int
    currency: str
    interval: BillingInterval
    components: tuple[Component, ...]
    created_at: datetime
    late_usage_policy: LateUsagePolicy = LateUsagePolicy.OPEN_PERIOD

    @property
    def holds_late_usage(self) -> bool:
        """Whether late usage of its periods waits for a recalculation."""
        return self.late_usage_policy is LateUsagePolicy.HOLD

    def component_of(self, usage_meter_id: UUID) -> Component | None:
        """Return the component that prices a meter, if there is one."""
        for component in self.components:
            if component.usage_meter_id == usage_meter_id:
                return component
        return None


@dataclass(frozen=True, slots=True)
class Plan:
    """A thing to subscribe to."""

    id: UUID
    currency: str
    latest_version: PlanVersion
    created_at: datetime
