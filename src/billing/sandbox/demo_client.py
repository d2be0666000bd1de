"""What the demonstration asks of the services, over gRPC with the generated stubs."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.decimal_pb2 import Decimal

from billing.sandbox.correction_client import CorrectionClient
from billing.sandbox.credit_client import CreditClient
from billing.sandbox.sample_data import SampleEvent, SamplePlan
from billing.v1 import (
    billing_run_pb2,
    billing_run_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    subscription_pb2,
    subscription_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
)
from invoicing.v1 import invoicing_pb2, invoicing_pb2_grpc

EVENTS_PER_CALL: Final = 2_500
_CALLS_AT_A_TIME: Final = 16
_PAGE_SIZE: Final = 1_000
_RUN_SECONDS: Final = 60.0

T = TypeVar("T")


class DemoClient:
    """One tenant's caller of the billing service, and a reader of its invoices."""

    def __init__(
        self, tenant_id: str, token: str, api: grpc.aio.Channel, invoicing: grpc.aio.Channel
    ) -> None:
        self._tenant_id = tenant_id
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._catalog = catalog_pb2_grpc.CatalogServiceStub(api)
        self._subscriptions = subscription_pb2_grpc.SubscriptionServiceStub(api)
        self._usage = usage_pb2_grpc.UsageServiceStub(api)
        self._billing_runs = billing_run_pb2_grpc.BillingRunServiceStub(api)
        self._ledger = ledger_pb2_grpc.LedgerServiceStub(api)
        self._invoicing = invoicing_pb2_grpc.InvoicingServiceStub(invoicing)
        self.credits = CreditClient(tenant_id, self._metadata, api)
        self.corrections = CorrectionClient(tenant_id, self._metadata, api)
        self._meter_ids: dict[str, str] = {}
        self._plan_ids: dict[str, str] = {}

    async def create_catalog(
        self, meter_names: Mapping[str, str], plans: Iterable[SamplePlan]
    ) -> None:
        """Create meters, given as names by code, and plans."""
        for code, name in meter_names.items():
            created = await self._catalog.CreateUsageMeter(
                catalog_pb2.CreateUsageMeterRequest(
                    tenant_id=self._tenant_id,
                    code=code,
                    name=name,
                    aggregation=catalog_pb2.USAGE_AGGREGATION_SUM,
                ),
                metadata=self._metadata,
            )
            self._meter_ids[code] = created.usage_meter.id
        for plan in plans:
            answer = await self._catalog.CreatePlan(
                self._plan_request(plan, meter_names), metadata=self._metadata
            )
            self._plan_ids[plan.name] = answer.plan.id

    def _plan_request(
        self, plan: SamplePlan, meter_names: Mapping[str, str]
    ) -> catalog_pb2.CreatePlanRequest:
        return catalog_pb2.CreatePlanRequest(
            tenant_id=self._tenant_id,
            currency=plan.currency,
            version=catalog_pb2.PlanVersionInput(
                name=plan.name,
                base_price_amount=plan.base_price_minor,
                interval=catalog_pb2.BillingInterval(
                    unit=catalog_pb2.BILLING_INTERVAL_UNIT_MONTH, count=1
                ),
                components=[
                    catalog_pb2.ComponentInput(
                        usage_meter_id=self._meter_ids[component.meter_code],
                        name=meter_names[component.meter_code],
                        unit_price=Decimal(value=component.unit_price),
                        included_units=Decimal(value=component.included_units),
                    )
                    for component in plan.components
                ],
            ),
        )

    async def create_subscriptions(
        self, plans: Sequence[SamplePlan], *, started_at: datetime, realtime: Collection[int] = ()
    ) -> list[str]:
        """Create a subscription for each plan in the list, and return their ids in its order.

        Those with the numbers ``realtime`` use their credits as usage arrives.
        """
        requests = [
            subscription_pb2.CreateSubscriptionRequest(
                tenant_id=self._tenant_id,
                customer_id=f"cus-{number:04d}",
                plan_id=self._plan_ids[plan.name],
                started_at=_timestamp(started_at),
                request_id=f"demo-subscription-{number}",
                credit_application=(
                    subscription_pb2.CREDIT_APPLICATION_MODE_REALTIME
                    if number in realtime
                    else subscription_pb2.CREDIT_APPLICATION_MODE_AT_BILLING
                ),
            )
            for number, plan in enumerate(plans)
        ]
        answers = await _at_a_time(
            self._subscriptions.CreateSubscription(request, metadata=self._metadata)
            for request in requests
        )
        return [answer.subscription.id for answer in answers]

    async def ingest(
        self, events: Sequence[SampleEvent], subscription_ids: Sequence[str]
    ) -> Counter[str]:
        """Send the events in large calls, and return how many had which outcome."""
        outcomes: Counter[str] = Counter()
        for start in range(0, len(events), EVENTS_PER_CALL):
            answer = await self._usage.IngestUsageEvents(
                usage_pb2.IngestUsageEventsRequest(
                    tenant_id=self._tenant_id,
                    events=[
                        self._event(event, subscription_ids[event.subscription])
                        for event in events[start : start + EVENTS_PER_CALL]
                    ],
                ),
                metadata=self._metadata,
            )
            outcomes["accepted"] += answer.accepted_count
            outcomes["duplicate"] += answer.duplicate_count
            outcomes["conflict"] += answer.conflict_count
            outcomes["rejected"] += answer.rejected_count
        return outcomes

    def _event(self, event: SampleEvent, subscription_id: str) -> usage_pb2.UsageEventInput:
        return usage_pb2.UsageEventInput(
            idempotency_key=event.idempotency_key,
            subscription_id=subscription_id,
            usage_meter_id=self._meter_ids[event.meter_code],
            quantity=Decimal(value=event.quantity),
            event_timestamp=_timestamp(event.event_timestamp),
            properties={"region": event.region},
        )

    async def pause(self, subscription_ids: Iterable[str]) -> None:
        """Pause subscriptions."""
        for subscription_id in subscription_ids:
            await self._subscriptions.PauseSubscription(
                subscription_pb2.PauseSubscriptionRequest(
                    tenant_id=self._tenant_id, subscription_id=subscription_id
                ),
                metadata=self._metadata,
            )

    async def cancel(self, subscription_ids: Iterable[str]) -> None:
        """Cancel subscriptions at once."""
        for subscription_id in subscription_ids:
            await self._subscriptions.CancelSubscription(
                subscription_pb2.CancelSubscriptionRequest(
                    tenant_id=self._tenant_id,
                    subscription_id=subscription_id,
                    mode=subscription_pb2.CANCELLATION_MODE_IMMEDIATELY,
                    request_id=f"demo-cancel-{subscription_id}",
                ),
                metadata=self._metadata,
            )

    async def run_billing(self, request_id: str) -> billing_run_pb2.BillingRun:
        """Run billing to its end."""
        answer = await self._billing_runs.RunBilling(
            billing_run_pb2.RunBillingRequest(
                tenant_id=self._tenant_id,
                run_type=billing_run_pb2.BILLING_RUN_TYPE_MANUAL,
                request_id=request_id,
            ),
            metadata=self._metadata,
            timeout=_RUN_SECONDS,
        )
        return answer.billing_run

    async def run_billing_for_subscription(
        self, subscription_id: str, request_id: str
    ) -> billing_run_pb2.BillingRunResult:
        """Bill the oldest due period of a subscription."""
        answer = await self._billing_runs.RunBillingForSubscription(
            billing_run_pb2.RunBillingForSubscriptionRequest(
                tenant_id=self._tenant_id, subscription_id=subscription_id, request_id=request_id
            ),
            metadata=self._metadata,
            timeout=_RUN_SECONDS,
        )
        return answer.billing_run_result

    async def list_results(self, run_id: str) -> list[billing_run_pb2.BillingRunResult]:
        """Return the results of a run."""
        answer = await self._billing_runs.ListBillingRunResults(
            billing_run_pb2.ListBillingRunResultsRequest(
                tenant_id=self._tenant_id, run_id=run_id, page_size=_PAGE_SIZE
            ),
            metadata=self._metadata,
        )
        return list(answer.results)

    async def get_invoice(self, invoice_id: str) -> invoicing_pb2.Invoice:
        """Return an invoice, from the invoicing service."""
        answer = await self._invoicing.GetInvoice(
            invoicing_pb2.GetInvoiceRequest(tenant_id=self._tenant_id, invoice_id=invoice_id)
        )
        return answer.invoice

    async def list_entries(self, subscription_id: str) -> list[ledger_pb2.LedgerEntry]:
        """Return the ledger entries of a subscription."""
        entries: list[ledger_pb2.LedgerEntry] = []
        page_token = ""
        while True:
            answer = await self._ledger.ListLedgerEntries(
                ledger_pb2.ListLedgerEntriesRequest(
                    tenant_id=self._tenant_id,
                    subscription_id=subscription_id,
                    page_size=_PAGE_SIZE,
                    page_token=page_token,
                ),
                metadata=self._metadata,
            )
            entries.extend(answer.ledger_entries)
            page_token = answer.next_page_token
            if not page_token:
                return entries

    async def get_balance(self, subscription_id: str) -> ledger_pb2.Balance:
        """Return what a subscription owes and has."""
        answer = await self._ledger.GetBalance(
            ledger_pb2.GetBalanceRequest(
                tenant_id=self._tenant_id, subscription_id=subscription_id
            ),
            metadata=self._metadata,
        )
        return answer.balance

    async def get_trial_balance(self) -> ledger_pb2.GetTrialBalanceResponse:
        """Return the tenant's debits and credits."""
        return await self._ledger.GetTrialBalance(
            ledger_pb2.GetTrialBalanceRequest(tenant_id=self._tenant_id), metadata=self._metadata
        )


async def _at_a_time(calls: Iterable[Awaitable[T]]) -> list[T]:
    """Await many calls, a bounded number at a time; the results are in the order of the calls."""
    slots = asyncio.Semaphore(_CALLS_AT_A_TIME)

    async def call(awaitable: Awaitable[T]) -> T:
        async with slots:
            return await awaitable

    return await asyncio.gather(*[call(awaitable) for awaitable in calls])


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
