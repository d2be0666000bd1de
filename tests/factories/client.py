"""A tenant's caller: the generated stubs with its token, and builders with sensible defaults."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2
from google.type.decimal_pb2 import Decimal

from billing.sandbox.development_key import DevelopmentKey, mint_token
from billing.v1 import (
    billing_run_pb2,
    billing_run_pb2_grpc,
    calculation_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    credit_pb2_grpc,
    ledger_pb2,
    ledger_pb2_grpc,
    payment_pb2_grpc,
    subscription_pb2,
    subscription_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
)

MONTHLY = catalog_pb2.BillingInterval(unit=catalog_pb2.BILLING_INTERVAL_UNIT_MONTH, count=1)


def new_tenant() -> str:
    """Return a tenant that no other test has: rows of the ledger cannot be deleted."""
    return f"tenant-{uuid.uuid4().hex[:12]}"


def timestamp(moment: datetime) -> Timestamp:
    """Return the message of a moment."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def moment(message: Timestamp) -> datetime:
    """Return the moment in a message, in UTC."""
    return message.ToDatetime(tzinfo=UTC)


class Calls:
    """A stub whose calls carry the caller's metadata."""

    def __init__(self, stub: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self._stub = stub
        self._metadata = metadata

    def __getattr__(self, method: str) -> Any:
        return partial(getattr(self._stub, method), metadata=self._metadata)


@dataclass(frozen=True)
class BillingClient:
    """Calls the service for one tenant."""

    channel: grpc.aio.Channel
    key: DevelopmentKey
    tenant_id: str = field(default_factory=new_tenant)
    livemode: bool = True
    capabilities: Sequence[str] | None = None
    tenants: Sequence[str] | None = None

    def with_capabilities(self, *capabilities: str) -> "BillingClient":
        """The same caller with these capabilities alone."""
        return replace(self, capabilities=capabilities)

    def in_test_mode(self) -> "BillingClient":
        """The same tenant's test data."""
        return replace(self, livemode=False)

    def for_tenant(self, tenant_id: str) -> "BillingClient":
        """A caller of another tenant."""
        return replace(self, tenant_id=tenant_id)

    @property
    def token(self) -> str:
        """The caller's credentials."""
        return mint_token(
            self.key,
            subject="tests",
            tenants=self.tenants or [self.tenant_id],
            livemode=self.livemode,
            capabilities="*" if self.capabilities is None else self.capabilities,
            ttl_seconds=600,
        )

    def _calls(self, stub: Any) -> Calls:
        return Calls(stub, [("authorization", f"Bearer {self.token}")])

    @property
    def catalog(self) -> Calls:
        """CatalogService."""
        return self._calls(catalog_pb2_grpc.CatalogServiceStub(self.channel))

    @property
    def subscriptions(self) -> Calls:
        """SubscriptionService."""
        return self._calls(subscription_pb2_grpc.SubscriptionServiceStub(self.channel))

    @property
    def usage(self) -> Calls:
        """UsageService."""
        return self._calls(usage_pb2_grpc.UsageServiceStub(self.channel))

    @property
    def billing_runs(self) -> Calls:
        """BillingRunService."""
        return self._calls(billing_run_pb2_grpc.BillingRunServiceStub(self.channel))

    @property
    def ledger(self) -> Calls:
        """LedgerService."""
        return self._calls(ledger_pb2_grpc.LedgerServiceStub(self.channel))

    @property
    def credits(self) -> Calls:
        """CreditService; its builders are in ``credits.py``."""
        return self._calls(credit_pb2_grpc.CreditServiceStub(self.channel))

    @property
    def payments(self) -> Calls:
        """PaymentService; its builders are in ``credits.py``."""
        return self._calls(payment_pb2_grpc.PaymentServiceStub(self.channel))

    @property
    def calculations(self) -> Calls:
        """CalculationService; its builders are in ``calculations.py``."""
        return self._calls(calculation_pb2_grpc.CalculationServiceStub(self.channel))

    async def create_meter(self, code: str = "api_calls") -> str:
        """Create a usage meter and return its id."""
        answer = await self.catalog.CreateUsageMeter(
            catalog_pb2.CreateUsageMeterRequest(
                tenant_id=self.tenant_id,
                code=code,
                name=code,
                aggregation=catalog_pb2.USAGE_AGGREGATION_SUM,
            )
        )
        return str(answer.usage_meter.id)

    def plan_version(
        self,
        *,
        name: str = "Pro Plan",
        base_price_amount: int = 2000,
        interval: catalog_pb2.BillingInterval = MONTHLY,
        components: Sequence[catalog_pb2.ComponentInput] = (),
        late_usage_policy: catalog_pb2.LateUsagePolicy.ValueType = (
            catalog_pb2.LATE_USAGE_POLICY_UNSPECIFIED
        ),
    ) -> catalog_pb2.PlanVersionInput:
        """The content of a plan version."""
        return catalog_pb2.PlanVersionInput(
            name=name,
            base_price_amount=base_price_amount,
            interval=interval,
            components=components,
            late_usage_policy=late_usage_policy,
        )

    async def create_plan(self, *, currency: str = "USD", **version: Any) -> str:
        """Create a plan and return its id; the keywords are those of ``plan_version``."""
        answer = await self.catalog.CreatePlan(
            catalog_pb2.CreatePlanRequest(
                tenant_id=self.tenant_id, currency=currency, version=self.plan_version(**version)
            )
        )
        return str(answer.plan.id)

    async def subscribe(
        self,
        plan_id: str,
        *,
        started_at: datetime | None = None,
        customer_id: str = "cus-1",
        credit_application: subscription_pb2.CreditApplicationMode.ValueType = (
            subscription_pb2.CREDIT_APPLICATION_MODE_UNSPECIFIED
        ),
    ) -> subscription_pb2.Subscription:
        """Create a subscription."""
        answer = await self.subscriptions.CreateSubscription(
            subscription_pb2.CreateSubscriptionRequest(
                tenant_id=self.tenant_id,
                customer_id=customer_id,
                plan_id=plan_id,
                started_at=timestamp(started_at) if started_at else None,
                credit_application=credit_application,
            )
        )
        return answer.subscription  # type: ignore[no-any-return]

    async def get_subscription(self, subscription_id: str) -> subscription_pb2.Subscription:
        """Return a subscription."""
        answer = await self.subscriptions.GetSubscription(
            subscription_pb2.GetSubscriptionRequest(
                tenant_id=self.tenant_id, subscription_id=subscription_id
            )
        )
        return answer.subscription  # type: ignore[no-any-return]

    async def pause(self, subscription_id: str) -> subscription_pb2.Subscription:
        """Pause a subscription."""
        answer = await self.subscriptions.PauseSubscription(
            subscription_pb2.PauseSubscriptionRequest(
                tenant_id=self.tenant_id, subscription_id=subscription_id
            )
        )
        return answer.subscription  # type: ignore[no-any-return]

    async def resume(self, subscription_id: str) -> subscription_pb2.Subscription:
        """Resume a subscription."""
        answer = await self.subscriptions.ResumeSubscription(
            subscription_pb2.ResumeSubscriptionRequest(
                tenant_id=self.tenant_id, subscription_id=subscription_id
            )
        )
        return answer.subscription  # type: ignore[no-any-return]

    async def cancel(
        self, subscription_id: str, *, immediately: bool = False, request_id: str = "cancel-1"
    ) -> subscription_pb2.CancelSubscriptionResponse:
        """Cancel a subscription."""
        mode = (
            subscription_pb2.CANCELLATION_MODE_IMMEDIATELY
            if immediately
            else subscription_pb2.CANCELLATION_MODE_AT_PERIOD_END
        )
        return await self.subscriptions.CancelSubscription(  # type: ignore[no-any-return]
            subscription_pb2.CancelSubscriptionRequest(
                tenant_id=self.tenant_id,
                subscription_id=subscription_id,
                mode=mode,
                request_id=request_id,
            )
        )

    async def ingest(
        self, events: Sequence[usage_pb2.UsageEventInput]
    ) -> usage_pb2.IngestUsageEventsResponse:
        """Send usage events."""
        return await self.usage.IngestUsageEvents(  # type: ignore[no-any-return]
            usage_pb2.IngestUsageEventsRequest(tenant_id=self.tenant_id, events=events)
        )

    async def use(
        self, subscription_id: str, meter_id: str, quantity: str, at: datetime
    ) -> usage_pb2.UsageEventResult:
        """Send one usage event with a new key and return its result."""
        event = usage_event(subscription_id, meter_id, quantity, at)
        return (await self.ingest([event])).results[0]

    async def run_billing(
        self,
        request_id: str = "run-1",
        *,
        run_type: int = billing_run_pb2.BILLING_RUN_TYPE_MANUAL,
        as_of: datetime | None = None,
    ) -> billing_run_pb2.BillingRun:
        """Run billing to its end, and return the run with its results."""
        answer = await self.billing_runs.RunBilling(
            billing_run_pb2.RunBillingRequest(
                tenant_id=self.tenant_id,
                run_type=billing_run_pb2.BillingRunType.ValueType(run_type),
                request_id=request_id,
                as_of=timestamp(as_of) if as_of else None,
            )
        )
        return await self.get_run(answer.billing_run.id)

    async def get_run(self, run_id: str) -> billing_run_pb2.BillingRun:
        """Return a run with its results."""
        answer = await self.billing_runs.GetBillingRun(
            billing_run_pb2.GetBillingRunRequest(tenant_id=self.tenant_id, run_id=run_id)
        )
        return answer.billing_run  # type: ignore[no-any-return]

    async def run_for_subscription(
        self, subscription_id: str, request_id: str = "single-1"
    ) -> billing_run_pb2.BillingRunResult:
        """Bill the oldest due period of a subscription."""
        answer = await self.billing_runs.RunBillingForSubscription(
            billing_run_pb2.RunBillingForSubscriptionRequest(
                tenant_id=self.tenant_id, subscription_id=subscription_id, request_id=request_id
            )
        )
        return answer.billing_run_result  # type: ignore[no-any-return]

    async def balance(
        self, subscription_id: str, *, as_of: datetime | None = None
    ) -> ledger_pb2.Balance:
        """Return what a subscription owes."""
        answer = await self.ledger.GetBalance(
            ledger_pb2.GetBalanceRequest(
                tenant_id=self.tenant_id,
                subscription_id=subscription_id,
                as_of=timestamp(as_of) if as_of else None,
            )
        )
        return answer.balance  # type: ignore[no-any-return]

    async def entries(self, subscription_id: str) -> list[ledger_pb2.LedgerEntry]:
        """Return all ledger entries of a subscription."""
        entries: list[ledger_pb2.LedgerEntry] = []
        page_token = ""
        while True:
            answer = await self.ledger.ListLedgerEntries(
                ledger_pb2.ListLedgerEntriesRequest(
                    tenant_id=self.tenant_id,
                    subscription_id=subscription_id,
                    page_size=1000,
                    page_token=page_token,
                )
            )
            entries.extend(answer.ledger_entries)
            page_token = answer.next_page_token
            if not page_token:
                return entries

    async def trial_balance(self) -> ledger_pb2.GetTrialBalanceResponse:
        """Return the tenant's debits and credits."""
        return await self.ledger.GetTrialBalance(  # type: ignore[no-any-return]
            ledger_pb2.GetTrialBalanceRequest(tenant_id=self.tenant_id)
        )


def component(
    meter_id: str, *, name: str = "API Calls", unit_price: str = "0.015", included: str = "0"
) -> catalog_pb2.ComponentInput:
    """A component to publish."""
    return catalog_pb2.ComponentInput(
        usage_meter_id=meter_id,
        name=name,
        unit_price=Decimal(value=unit_price),
        included_units=Decimal(value=included),
    )


def usage_event(
    subscription_id: str,
    meter_id: str,
    quantity: str,
    at: datetime,
    *,
    key: str | None = None,
    properties: Mapping[str, str] | None = None,
) -> usage_pb2.UsageEventInput:
    """A usage event; with a new key if none is given."""
    return usage_pb2.UsageEventInput(
        idempotency_key=key or uuid.uuid4().hex,
        subscription_id=subscription_id,
        usage_meter_id=meter_id,
        quantity=Decimal(value=quantity),
        event_timestamp=timestamp(at),
        properties=properties or {},
    )


def error_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo:
    """Return the ErrorInfo that every error carries."""
    info = error_details_pb2.ErrorInfo()
    for detail in _details(error):
        if detail.Unpack(info):
            return info
    raise AssertionError(f"no ErrorInfo in {error!r}")


def violated_fields(error: grpc.aio.AioRpcError) -> list[str]:
    """Return the fields that an INVALID_ARGUMENT names."""
    bad_request = error_details_pb2.BadRequest()
    for detail in _details(error):
        if detail.Unpack(bad_request):
            return [violation.field for violation in bad_request.field_violations]
    return []


def _details(error: grpc.aio.AioRpcError) -> Sequence[Any]:
    metadata: Any = error.trailing_metadata() or ()
    for name, value in metadata:
        if name == "grpc-status-details-bin":
            return list(status_pb2.Status.FromString(value).details)
    return []
