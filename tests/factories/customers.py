"""A customer whose plan prices two meters, and what it uses, is billed and owes."""

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import (
    billing_run_pb2,
    catalog_pb2,
    ledger_pb2,
    payment_pb2,
    usage_credit_pb2,
)
from invoicing.v1 import invoicing_pb2
from tests.factories.billing_runs import APRIL, MARCH
from tests.factories.client import BillingClient, component
from tests.factories.clock import START, FakeClock
from tests.factories.credits import create_payment, grant_credit
from tests.factories.ledger_audit import invoices_of
from tests.factories.ledger_moves import moves

BASE_PRICE = 1000
API_CALLS, STORAGE = 0, 1
UNIT_PRICES = (2, 3)
"""Of an API call, and of a unit of storage."""

OWN_ACCOUNTS = frozenset({"receivable", "credit", "refund_clearing"})
"""What one subscription owes and has; the others are the tenant's."""


class Owed(NamedTuple):
    """What a subscription owes by how far it got, and what it has."""

    unbilled: int = 0
    billed_not_invoiced: int = 0
    invoiced: int = 0
    credit_balance: int = 0
    available_credit: int = 0


@dataclass(frozen=True)
class Customer:
    """A monthly subscription since 1 March: 1000 a month, 2 an API call, 3 a unit of storage."""

    client: BillingClient
    clock: FakeClock
    plan_id: str
    subscription_id: str
    period_id: str
    """March: the clock begins in the middle of it."""
    meter_ids: tuple[str, str]
    component_ids: tuple[str, str]

    async def use(self, units: int, what: int = API_CALLS, *, at: datetime | None = None) -> int:
        """Use units now, or at a moment, and return what they cost."""
        moment = at or self.clock.now
        result = await self.client.use(
            self.subscription_id, self.meter_ids[what], str(units), moment
        )
        assert result.reason == ""
        return units * UNIT_PRICES[what]

    async def grant(self, amount: int = 1000, **terms: Any) -> usage_credit_pb2.UsageCredit:
        """Grant a credit; the keywords are those of ``grant_credit``."""
        return await grant_credit(self.client, self.subscription_id, amount, **terms)

    async def pay(self, amount: int = 1000, **terms: Any) -> payment_pb2.Payment:
        """Pay and confirm; the keywords are those of ``create_payment``."""
        return await create_payment(self.client, self.subscription_id, amount, **terms)

    async def bill(self, at: datetime = APRIL + timedelta(days=1)) -> billing_run_pb2.BillingRun:
        """Bill all that is due at a moment: March, on the second of April."""
        self.clock.set(at)
        return await self.client.run_billing(uuid.uuid4().hex)

    async def current_period_id(self) -> str:
        """Return the period that would be billed next."""
        subscription = await self.client.get_subscription(self.subscription_id)
        return subscription.current_period_id

    async def entries(self, *, since: int = 0) -> list[ledger_pb2.LedgerEntry]:
        """Return the subscription's entries without the first ones, in the order they were made."""
        return (await self.client.entries(self.subscription_id))[since:]

    async def owed(self) -> Owed:
        """Return the balance; fails unless its parts add up, and the entries explain it."""
        now = await self.client.balance(self.subscription_id)
        parts = Owed(
            now.unbilled_amount,
            now.billed_not_invoiced_amount,
            now.invoiced_amount,
            now.credit_balance_amount,
            now.available_credit_amount,
        )
        assert now.outstanding_amount == sum(parts[:3])
        assert now.net_amount == now.credit_balance_amount - now.outstanding_amount
        by_entries = await self.client.balance(
            self.subscription_id, as_of=now.as_of.ToDatetime(tzinfo=START.tzinfo)
        )
        assert by_entries == now
        assert now.net_amount == sum(
            move.amount
            for move in moves(await self.entries())
            if move.state == "posted"
            and (move.debit in OWN_ACCOUNTS) != (move.credit in OWN_ACCOUNTS)
        )
        return parts

    def invoices(self, invoicing: ReferenceInvoicingServer) -> list[invoicing_pb2.Invoice]:
        """Return the subscription's invoices, by period."""
        return invoices_of(invoicing, self.client, self.subscription_id)


def lines_of(invoice: invoicing_pb2.Invoice) -> dict[str, int]:
    """Return the amounts of an invoice's lines by their descriptions; fails unless they add up."""
    lines = {line.description: line.amount for line in invoice.line_items}
    assert len(lines) == len(invoice.line_items)
    assert sum(lines.values()) == invoice.total_amount
    return lines


async def new_customer(
    client: BillingClient,
    clock: FakeClock,
    *,
    base_price_amount: int = BASE_PRICE,
    started_at: datetime = MARCH,
) -> Customer:
    """Subscribe to a new plan with two new meters."""
    suffix = uuid.uuid4().hex[:8]
    api_calls = await client.create_meter(f"api_calls_{suffix}")
    storage = await client.create_meter(f"storage_{suffix}")
    answer = await client.catalog.CreatePlan(
        catalog_pb2.CreatePlanRequest(
            tenant_id=client.tenant_id,
            currency="USD",
            version=client.plan_version(
                base_price_amount=base_price_amount,
                components=[
                    component(api_calls, name="API Calls", unit_price=str(UNIT_PRICES[API_CALLS])),
                    component(storage, name="Storage", unit_price=str(UNIT_PRICES[STORAGE])),
                ],
            ),
        )
    )
    first, second = answer.plan.latest_version.components
    subscription = await client.subscribe(answer.plan.id, started_at=started_at)
    return Customer(
        client=client,
        clock=clock,
        plan_id=answer.plan.id,
        subscription_id=subscription.id,
        period_id=subscription.current_period_id,
        meter_ids=(api_calls, storage),
        component_ids=(first.id, second.id),
    )
