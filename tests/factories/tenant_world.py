"""One tenant's things, and a request of every RPC that would touch or tell them.

The RPCs come from the descriptors: a new one is missed until it says here what a stranger gets.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

import billing.v1
from billing.v1 import (
    calculation_pb2,
    credit_pb2,
    options_pb2,
    usage_credit_pb2,
    usage_pb2,
)
from tests.factories.calculations import recalculate, void_event, write_off
from tests.factories.client import BillingClient
from tests.factories.clock import START, FakeClock
from tests.factories.credits import create_payment, create_refund, grant_credit
from tests.factories.explanations import charges_of
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
    charge_id: str
    usage_credit_id: str
    payment_id: str
    pending_payment_id: str
    refund_id: str
    recalculation: calculation_pb2.Recalculation
    calculation_id: str
    write_off_id: str
    voided_event_id: str

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
            ("PaymentService.ListWriteOffs", {"subscription_id": subscription_id}),
            ("CalculationService.ListCalculations", {"subscription_id": subscription_id}),
            ("CalculationService.ListRecalculations", {"subscription_id": subscription_id}),
            ("LedgerService.ListLedgerEntries", {"subscription_id": subscription_id}),
            ("LedgerService.ListLedgerTransactions", {"subscription_id": subscription_id}),
            ("LedgerService.GetTrialBalance", {}),
        ]
        return [await call(client, request_of(rpc, **fields)) for rpc, fields in lists]


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
    """Send the request for the caller's tenant, or another; with its token, another, or none.

    The parts of a streamed answer come as one.
    """
    message = type(request.message)()
    message.CopyFrom(request.message)
    message.tenant_id = tenant_id or client.tenant_id
    method = METHODS[request.rpc]
    connect = client.channel.unary_stream if method.server_streaming else client.channel.unary_unary
    answer_type: Any = GetMessageClass(method.output_type)
    send: Any = connect(
        request.path,
        request_serializer=type(message).SerializeToString,
        response_deserializer=answer_type.FromString,
    )
    metadata = [] if token is None else [("authorization", f"Bearer {token or client.token}")]
    if not method.server_streaming:
        return await send(message, metadata=metadata)
    answer = answer_type()
    async for part in send(message, metadata=metadata):
        answer.MergeFrom(part)
    return answer


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
    [wrong] = await metered.send(metered.event("100000", at=began + timedelta(days=1)))
    run = await client.run_for_subscription(subscription_id)
    await metered.send(metered.event("5", at=START - timedelta(days=30)))
    _, usage_event = await metered.stored()
    await void_event(client, wrong.usage_event_id)
    recalculated = await recalculate(client, subscription_id, run.billing_period_id)
    given_up = await write_off(client, subscription_id, run.billing_period_id, amount=1)
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
    _, usage = (await call(client, meters)).subscription_usage_meters
    clock.set(START)
    return World(
        metered=metered,
        usage_event=usage_event,
        subscription_usage_meter_id=usage.id,
        run_id=run.run_id,
        ledger_transaction_id=entries[0].ledger_transaction_id,
        charge_id=(await charges_of(client, subscription_id))[0].id,
        usage_credit_id=credit.id,
        payment_id=payment.id,
        pending_payment_id=pending.id,
        refund_id=refund.id,
        recalculation=recalculated.recalculation,
        calculation_id=recalculated.calculations[0].id,
        write_off_id=given_up.id,
        voided_event_id=wrong.usage_event_id,
    )
