"""A subscription with one meter, and events of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from billing.v1 import usage_pb2 as pb
from tests.factories.client import BillingClient, component, usage_event
from tests.factories.clock import START

SUBSCRIBED_AT = START - timedelta(days=10)


@dataclass(frozen=True)
class MeteredSubscription:
    """A subscription whose plan prices one meter."""

    client: BillingClient
    plan_id: str
    subscription_id: str
    meter_id: str

    def event(
        self,
        quantity: str = "1",
        *,
        at: datetime = START,
        key: str | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> pb.UsageEventInput:
        """An event of the subscription, with a new key if none is given."""
        return usage_event(
            self.subscription_id, self.meter_id, quantity, at, key=key, properties=properties
        )

    async def send(self, *events: pb.UsageEventInput) -> list[pb.UsageEventResult]:
        """Send events in one call and return their results."""
        return list((await self.client.ingest(events)).results)

    async def get(self, usage_event_id: str) -> pb.UsageEvent:
        """Return a stored event."""
        request = pb.GetUsageEventRequest(
            tenant_id=self.client.tenant_id, usage_event_id=usage_event_id
        )
        return (await self.client.usage.GetUsageEvent(request)).usage_event  # type: ignore[no-any-return]

    async def page(self, **fields: Any) -> tuple[list[pb.UsageEvent], str]:
        """Return a page of its events, and the token of the next."""
        request = pb.ListUsageEventsRequest(
            **{
                "tenant_id": self.client.tenant_id,
                "subscription_id": self.subscription_id,
                **fields,
            }
        )
        answer = await self.client.usage.ListUsageEvents(request)
        return list(answer.usage_events), answer.next_page_token

    async def stored(self, **fields: Any) -> list[pb.UsageEvent]:
        """Return all its events."""
        events: list[pb.UsageEvent] = []
        token = ""
        while True:
            rows, token = await self.page(page_size=1000, page_token=token, **fields)
            events.extend(rows)
            if not token:
                return events


async def metered_subscription(
    client: BillingClient,
    *,
    unit_price: str = "2",
    included: str = "0",
    base_price_amount: int = 0,
    started_at: datetime = SUBSCRIBED_AT,
    code: str = "api_calls",
) -> MeteredSubscription:
    """Subscribe to a new plan, ten days ago, whose one meter costs 2 a unit."""
    meter_id = await client.create_meter(code)
    plan_id = await client.create_plan(
        base_price_amount=base_price_amount,
        components=[component(meter_id, unit_price=unit_price, included=included)],
    )
    subscription = await client.subscribe(plan_id, started_at=started_at)
    return MeteredSubscription(client, plan_id, subscription.id, meter_id)


def outcomes_of(results: Iterable[pb.UsageEventResult]) -> list[str]:
    """Return the outcomes as words: ``accepted``, ``duplicate``, ``conflict``, ``rejected``."""
    return [
        pb.UsageEventOutcome.Name(result.outcome).removeprefix("USAGE_EVENT_OUTCOME_").lower()
        for result in results
    ]
