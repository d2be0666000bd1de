"""One tenant's things, and a request of every RPC that would touch or tell them.

The RPCs come from the descriptors: a new one is missed until it says here what a stranger gets.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message_factory import GetMessageClass

import billing.v1
from billing.v1 import (
    catalog_pb2,
    credit_pb2,
    options_pb2,
    payment_pb2,
    subscription_pb2,
    usage_credit_pb2,
    usage_pb2,
)
from tests.factories.client import BillingClient, component
from tests.factories.clock import START, FakeClock
from tests.factories.credits import create_payment, create_refund, grant_credit
from tests.factories.usage import MeteredSubscription, metered_subscription


def all_methods() -> list[MethodDescriptor]:
    """Every RPC of ``billing.v1``."""
    modules = [
        importlib.import_module(f"billing.v1.{module.name}")
        for module in pkgutil.iter_modules(billing.v1.__path__)
        if module.name.endswith("_pb2")
    ]
    return [
        method
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


METHODS = {f"{method.containing_service.name}.{method.name}": method for method in all_methods()}
CAPABILITIES = {
    name: method.GetOptions().Extensions[options_pb2.required_capability]
    for name, method in METHODS.items()
}


@dataclass(frozen=True)
class World:
    """One tenant's live things, for others to try."""

    metered: MeteredSubscription
    usage_event: usage_pb2.UsageEvent
    subscription_usage_meter_id: str
    run_id: str
    ledger_transaction_id: str
    usage_credit_id: str
    payment_id: str
    pending_payment_id: str
    refund_id: str

    @property
    def client(self) -> BillingClient:
        """The owner of it all."""
        return self.metered.client

    async def everything(self) -> list[Any]:
        """All that the owner sees, to tell whether anything was touched."""
        client, subscription_id = self.client, self.metered.subscription_id
        lists = [
            ("CatalogService.ListUsageMeters", {}),
            ("CatalogService.ListPlans", {}),
            ("CatalogService.ListPlanVersions", {"plan_id": self.metered.plan_id}),
            ("SubscriptionService.ListSubscriptions", {}),
            ("SubscriptionService.GetSubscription", {"subscription_id": subscription_id}),
            ("UsageService.ListUsageEvents", {"subscription_id": subscription_id}),
            ("UsageService.ListSubscriptionUsageMeters", {"subscription_id": subscription_id}),
            ("BillingRunService.ListBillingRuns", {}),
            ("CreditService.ListCredits", {"subscription_id": subscription_id}),
            ("CreditService.ListCreditApplications", {"subscription_id": subscription_id}),
            (
                "CreditService.ListCreditBalanceAdjustments",
                {"usage_credit_id": self.usage_credit_id},
            ),
            ("PaymentService.ListPayments", {"subscription_id": subscription_id}),
            ("PaymentService.ListRefunds", {"subscription_id": subscription_id}),
            ("LedgerService.ListLedgerEntries", {"subscription_id": subscription_id}),
            ("LedgerService.GetTrialBalance", {}),
        ]
        return [await call(client, request_of(rpc, **fields)) for rpc, fields in lists]


Fields = Mapping[str, Any]


def plan_version(world: World) -> catalog_pb2.PlanVersionInput:
    return world.client.plan_version(components=[component(world.metered.meter_id)])


def subscription_of(world: World) -> Fields:
    return {"subscription_id": world.metered.subscription_id}


def credit_of(world: World) -> Fields:
    return {"usage_credit_id": world.usage_credit_id}


def money() -> Fields:
    return {"amount": 1, "currency": "USD", "request_id": "request-1"}


# What a stranger asks for: the owner's things, wherever the request can name any.
ASKED: Mapping[str, Callable[[World], Fields]] = {
    "CatalogService.CreateUsageMeter": lambda _: {
        "code": "api_calls",
        "name": "API calls",
        "aggregation": catalog_pb2.USAGE_AGGREGATION_SUM,
        "request_id": "request-1",
    },
    "CatalogService.GetUsageMeter": lambda w: {"usage_meter_id": w.metered.meter_id},
    "CatalogService.ListUsageMeters": lambda _: {},
    "CatalogService.CreatePlan": lambda w: {"currency": "USD", "version": plan_version(w)},
    "CatalogService.UpdatePlan": lambda w: {
        "plan_id": w.metered.plan_id,
        "version": w.client.plan_version(),
    },
    "CatalogService.GetPlan": lambda w: {"plan_id": w.metered.plan_id},
    "CatalogService.ListPlans": lambda _: {},
    "CatalogService.ListPlanVersions": lambda w: {"plan_id": w.metered.plan_id},
    "SubscriptionService.CreateSubscription": lambda w: {
        "plan_id": w.metered.plan_id,
        "customer_id": "cus-1",
    },
    "SubscriptionService.GetSubscription": subscription_of,
    "SubscriptionService.ListSubscriptions": lambda _: {"customer_id": "cus-1"},
    "SubscriptionService.PauseSubscription": subscription_of,
    "SubscriptionService.ResumeSubscription": subscription_of,
    "SubscriptionService.CancelSubscription": lambda w: {
        **subscription_of(w),
        "mode": subscription_pb2.CANCELLATION_MODE_IMMEDIATELY,
        "request_id": "request-1",
    },
    "UsageService.IngestUsageEvents": lambda w: {"events": [w.metered.event()]},
    "UsageService.GetUsageEvent": lambda w: {"usage_event_id": w.usage_event.id},
    "UsageService.ListUsageEvents": subscription_of,
    "UsageService.GetSubscriptionUsageMeter": lambda w: {
        "subscription_usage_meter_id": w.subscription_usage_meter_id
    },
    "UsageService.ListSubscriptionUsageMeters": subscription_of,
    "CreditService.GrantCredit": lambda w: {
        **subscription_of(w),
        **money(),
        "credit_type": usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_PROMO,
    },
    "CreditService.GetCredit": credit_of,
    "CreditService.ListCredits": subscription_of,
    "CreditService.UpdateCredit": lambda w: {
        **credit_of(w),
        "notes": "mine",
        "update_mask": FieldMask(paths=["notes"]),
    },
    "CreditService.VoidCredit": lambda w: {
        **credit_of(w),
        "reason": "mine",
        "request_id": "request-1",
    },
    "CreditService.AdjustCreditBalance": lambda w: {
        **credit_of(w),
        **money(),
        "adjustment_type": usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_TYPE_ADMIN_REDUCTION,
        "direction": usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_DECREASE,
        "reason": "mine",
        "adjusted_by_user_id": "me",
    },
    "CreditService.ListCreditBalanceAdjustments": credit_of,
    "CreditService.ListCreditApplications": subscription_of,
    "CreditService.ExpireCredits": lambda _: {},
    "CreditService.GetCreditSummary": subscription_of,
    "PaymentService.CreatePayment": lambda w: {
        **subscription_of(w),
        **money(),
        "purpose": payment_pb2.PAYMENT_PURPOSE_TOP_UP,
    },
    "PaymentService.ConfirmPayment": lambda w: {
        "payment_id": w.pending_payment_id,
        "processor_transaction_id": "mine",
        "request_id": "request-1",
    },
    "PaymentService.FailPayment": lambda w: {
        "payment_id": w.pending_payment_id,
        "failure_reason": "mine",
    },
    "PaymentService.GetPayment": lambda w: {"payment_id": w.payment_id},
    "PaymentService.ListPayments": subscription_of,
    "PaymentService.CreateRefund": lambda w: {"payment_id": w.payment_id, **money()},
    "PaymentService.ConfirmRefund": lambda w: {
        "refund_id": w.refund_id,
        "gateway_refund_id": "mine",
        "request_id": "request-1",
    },
    "PaymentService.FailRefund": lambda w: {
        "refund_id": w.refund_id,
        "failure_reason": "mine",
        "request_id": "request-1",
    },
    "PaymentService.GetRefund": lambda w: {"refund_id": w.refund_id},
    "PaymentService.ListRefunds": subscription_of,
    "BillingRunService.RunBilling": lambda _: {"run_type": 2, "request_id": "request-1"},
    "BillingRunService.RunBillingForSubscription": lambda w: {
        **subscription_of(w),
        "request_id": "request-1",
    },
    "BillingRunService.GetBillingRun": lambda w: {"run_id": w.run_id},
    "BillingRunService.ListBillingRuns": lambda _: {},
    "BillingRunService.ListBillingRunResults": lambda w: {"run_id": w.run_id},
    "LedgerService.GetBalance": subscription_of,
    "LedgerService.ListLedgerEntries": subscription_of,
    "LedgerService.GetLedgerTransaction": lambda w: {
        "ledger_transaction_id": w.ledger_transaction_id
    },
    "LedgerService.GetTrialBalance": lambda _: {},
}

# Requests that name nothing of the owner's, or have an answer for each event: what a stranger,
# who has nothing, gets instead of NOT_FOUND.
ANSWERED: Mapping[str, Callable[[Any], bool]] = {
    "CatalogService.CreateUsageMeter": lambda answer: answer.usage_meter.code == "api_calls",
    "CatalogService.ListUsageMeters": lambda answer: not answer.usage_meters,
    "CatalogService.ListPlans": lambda answer: not answer.plans,
    "SubscriptionService.ListSubscriptions": lambda answer: not answer.subscriptions,
    "UsageService.IngestUsageEvents": lambda answer: (
        answer.results[0].reason == "SUBSCRIPTION_NOT_FOUND"
    ),
    "CreditService.ExpireCredits": lambda answer: not answer.ByteSize(),
    "BillingRunService.RunBilling": lambda answer: answer.billing_run.processed_count == 0,
    "BillingRunService.ListBillingRuns": lambda answer: not answer.billing_runs,
    "LedgerService.GetTrialBalance": lambda answer: not answer.lines,
}


@dataclass(frozen=True)
class Request:
    """A request without its tenant."""

    rpc: str
    message: Any

    @property
    def path(self) -> str:
        """How gRPC names the RPC."""
        service, method = self.rpc.split(".")
        return f"/billing.v1.{service}/{method}"


def request_of(rpc: str, **fields: Any) -> Request:
    """A request of an RPC."""
    return Request(rpc, GetMessageClass(METHODS[rpc].input_type)(**fields))


async def call(
    client: BillingClient, request: Request, *, tenant_id: str = "", token: str | None = ""
) -> Any:
    """Send the request for the caller's tenant, or another; with its token, another, or none."""
    message = type(request.message)()
    message.CopyFrom(request.message)
    message.tenant_id = tenant_id or client.tenant_id
    send: Any = client.channel.unary_unary(
        request.path,
        request_serializer=type(message).SerializeToString,
        response_deserializer=GetMessageClass(METHODS[request.rpc].output_type).FromString,
    )
    metadata = [] if token is None else [("authorization", f"Bearer {token or client.token}")]
    return await send(message, metadata=metadata)


async def make_world(client: BillingClient, clock: FakeClock) -> World:
    """A subscription with a billed period, a due one with usage, credits and payments.

    One of the credits is overdue at ``START``.
    """
    clock.set(START - timedelta(hours=2))
    began = START - timedelta(days=70)
    metered = await metered_subscription(client, base_price_amount=2000, started_at=began)
    subscription_id = metered.subscription_id
    credit = await grant_credit(
        client, subscription_id, 100, effective_at=began, covers_charges=True
    )
    run = await client.run_for_subscription(subscription_id)
    await metered.send(metered.event("5", at=START - timedelta(days=30)))
    (usage_event,) = await metered.stored()
    await client.credits.AdjustCreditBalance(
        credit_pb2.AdjustCreditBalanceRequest(
            tenant_id=client.tenant_id,
            usage_credit_id=credit.id,
            adjustment_type=usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_TYPE_GRANT_CORRECTION,
            direction=usage_credit_pb2.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_INCREASE,
            amount=5,
            currency="USD",
            reason="a typing error",
            adjusted_by_user_id="ada",
            request_id="adjustment",
        )
    )
    await grant_credit(client, subscription_id, 7, expires_at=START - timedelta(hours=1))
    payment = await create_payment(client, subscription_id, 50)
    pending = await create_payment(client, subscription_id, 60, confirm=False)
    refund = await create_refund(client, payment.id, 20)
    entries = await client.entries(subscription_id)
    meters = request_of("UsageService.ListSubscriptionUsageMeters", subscription_id=subscription_id)
    (usage,) = (await call(client, meters)).subscription_usage_meters
    clock.set(START)
    return World(
        metered=metered,
        usage_event=usage_event,
        subscription_usage_meter_id=usage.id,
        run_id=run.run_id,
        ledger_transaction_id=entries[0].ledger_transaction_id,
        usage_credit_id=credit.id,
        payment_id=payment.id,
        pending_payment_id=pending.id,
        refund_id=refund.id,
    )
