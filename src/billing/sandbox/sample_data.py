"""A realistic month of an imaginary tenant: always the same, made from a seed."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

SEED: Final = 20260401
SUBSCRIPTION_COUNT: Final = 200
EVENT_COUNT: Final = 50_000
UNBILLABLE_CUSTOMER: Final = "cus-0042"
"""The invoicing service knows no address of this one."""


@dataclass(frozen=True, slots=True)
class SampleMeter:
    """A usage meter, and what one event of it looks like."""

    code: str
    name: str
    mean_quantity: float
    decimals: int


@dataclass(frozen=True, slots=True)
class SampleComponent:
    """A metered price: minor units a unit."""

    meter_code: str
    unit_price: str
    included_units: str

    def cost_minor(self, quantity: Decimal) -> int:
        """What a period's quantity costs: price times units over the included, halves up."""
        billable = max(quantity - Decimal(self.included_units), Decimal(0))
        return int((billable * Decimal(self.unit_price)).quantize(Decimal(1), ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """A plan; ``weight`` is how many of the customers choose it, of all weights."""

    name: str
    currency: str
    base_price_minor: int
    components: tuple[SampleComponent, ...]
    weight: int


@dataclass(frozen=True, slots=True)
class SampleEvent:
    """One event of the subscription with the number ``subscription``."""

    idempotency_key: str
    subscription: int
    meter_code: str
    quantity: str
    event_timestamp: datetime
    region: str


METERS: Final = (
    SampleMeter("api_calls", "API calls", 40, 0),
    SampleMeter("tokens", "Tokens", 9_000, 0),
    SampleMeter("storage_gb_hours", "Storage GB hours", 18, 3),
)
PLANS: Final = (
    SamplePlan("Starter", "USD", 1_900, (SampleComponent("api_calls", "0.015", "1000"),), weight=5),
    SamplePlan(
        "Pro Plan",
        "USD",
        9_900,
        (
            SampleComponent("api_calls", "0.012", "10000"),
            SampleComponent("tokens", "0.00015", "250000"),
            SampleComponent("storage_gb_hours", "0.0085", "0"),
        ),
        weight=3,
    ),
    SamplePlan(
        "Pro Plan Europe",
        "EUR",
        8_900,
        (
            SampleComponent("api_calls", "0.011", "10000"),
            SampleComponent("tokens", "0.00014", "250000"),
        ),
        weight=2,
    ),
    SamplePlan("Japan Metered", "JPY", 0, (SampleComponent("tokens", "0.0225", "0"),), weight=1),
)
_REGIONS: Final = ("eu-west", "us-east", "ap-tokyo")


def sample_plan_choices() -> list[SamplePlan]:
    """Return the plan of each subscription."""
    chooser = random.Random(SEED)  # noqa: S311  a sample, not a secret
    return chooser.choices(PLANS, [plan.weight for plan in PLANS], k=SUBSCRIPTION_COUNT)


def sample_events(
    plans: Sequence[SamplePlan], *, start: datetime, end: datetime
) -> Iterator[SampleEvent]:
    """Yield the events of a month in the order of their time.

    A few customers make most of the usage, and days are busier than nights.
    """
    chooser = random.Random(SEED)  # noqa: S311  a sample, not a secret
    meters = {meter.code: meter for meter in METERS}
    weights = [1 / math.sqrt(rank + 1) for rank in range(len(plans))]
    owners = chooser.choices(range(len(plans)), weights, k=EVENT_COUNT)
    moments = sorted(_moment(chooser, start, end) for _ in range(EVENT_COUNT))
    for number, (owner, moment) in enumerate(zip(owners, moments, strict=True)):
        meter = meters[chooser.choice(plans[owner].components).meter_code]
        quantity = chooser.lognormvariate(math.log(meter.mean_quantity), 0.8)
        yield SampleEvent(
            idempotency_key=f"gateway-{number:06d}",
            subscription=owner,
            meter_code=meter.code,
            quantity=f"{quantity:.{meter.decimals}f}",
            event_timestamp=moment,
            region=chooser.choice(_REGIONS),
        )


def _moment(chooser: random.Random, start: datetime, end: datetime) -> datetime:
    span_seconds = (end - start).total_seconds()
    while True:
        moment = start + timedelta(seconds=chooser.uniform(0, span_seconds))
        busyness = 0.6 - 0.4 * math.cos(2 * math.pi * (moment.hour - 3) / 24)
        if chooser.random() < busyness:
            return moment
