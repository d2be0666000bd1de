"""A subscription with two meters at one cent a unit, and credits, through a February and on."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import (
    billing_run_pb2,
    catalog_pb2,
    ledger_pb2,
    payment_pb2,
    subscription_pb2,
    usage_credit_pb2,
    usage_pb2,
)
from invoicing.v1 import invoicing_pb2
from tests.factories.billing_runs import FEBRUARY
from tests.factories.client import BillingClient, component, moment, usage_event
from tests.factories.clock import FakeClock
from tests.factories.credits import (
    applications,
    create_payment,
    credit,
    credits_of,
    grant_credit,
)
from tests.factories.ledger_audit import invoices_of

REALTIME_MODE = subscription_pb2.CREDIT_APPLICATION_MODE_REALTIME

AVAILABLE = usage_credit_pb2.USAGE_CREDIT_STATUS_AVAILABLE
PARTIALLY_USED = usage_credit_pb2.USAGE_CREDIT_STATUS_PARTIALLY_USED
FULLY_USED = usage_credit_pb2.USAGE_CREDIT_STATUS_FULLY_USED
EXPIRED = usage_credit_pb2.USAGE_CREDIT_STATUS_EXPIRED

RUN = usage_credit_pb2.CREDIT_APPLICATION_KIND_RUN
REALTIME = usage_credit_pb2.CREDIT_APPLICATION_KIND_REALTIME
SETTLEMENT = usage_credit_pb2.CREDIT_APPLICATION_KIND_SETTLEMENT

USAGE_COST = ledger_pb2.LEDGER_ENTRY_TYPE_USAGE_COST
CHARGE_BILLED = ledger_pb2.LEDGER_ENTRY_TYPE_CHARGE_BILLED
APPLIED_TO_USAGE = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_APPLIED_TO_USAGE
APPLIED_TO_CHARGE = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_APPLIED_TO_CHARGE
SURPLUS_CREDITED = ledger_pb2.LEDGER_ENTRY_TYPE_SURPLUS_CREDITED
GRANT_EXPIRED = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_GRANT_EXPIRED
POSTED = ledger_pb2.LEDGER_ENTRY_STATUS_POSTED

_RECEIVABLE = ledger_pb2.LEDGER_ACCOUNT_KIND_RECEIVABLE
_OWN_KINDS = {
    _RECEIVABLE,
    ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT,
    ledger_pb2.LEDGER_ACCOUNT_KIND_REFUND_CLEARING,
}

Credit: TypeAlias = usage_credit_pb2.UsageCredit
Application: TypeAlias = usage_credit_pb2.CreditApplication
Entry: TypeAlias = ledger_pb2.LedgerEntry


def february(day: int) -> datetime:
    """The start of a day of February 2026, or after it."""
    return FEBRUARY + timedelta(days=day - 1)


@dataclass(frozen=True)
class CreditedSubscription:
    """A subscription of a plan with calls and tokens, each unit a cent; and its caller."""

    client: BillingClient
    clock: FakeClock
    invoicing: ReferenceInvoicingServer
    id: str
    plan_id: str
    meter_ids: Sequence[str]
    component_ids: Sequence[str]

    @property
    def calls(self) -> str:
        """The meter of the first component."""
        return self.meter_ids[0]

    @property
    def tokens(self) -> str:
        """The meter of the second component."""
        return self.meter_ids[1]

    def reach(self, at: datetime) -> None:
        """Let time pass until a moment, unless it has."""
        if self.clock.now < at:
            self.clock.set(at)

    async def get(self) -> subscription_pb2.Subscription:
        """Return the subscription as it stands."""
        return await self.client.get_subscription(self.id)

    async def use(self, units: int, at: datetime, meter_id: str = "") -> usage_pb2.UsageEventResult:
        """Consume units, of calls unless told otherwise: so many cents."""
        self.reach(at)
        return await self.client.use(self.id, meter_id or self.calls, str(units), at)

    def event(self, units: int, at: datetime, meter_id: str = "") -> usage_pb2.UsageEventInput:
        """An event to send."""
        return usage_event(self.id, meter_id or self.calls, str(units), at)

    async def send(self, *events: usage_pb2.UsageEventInput) -> usage_pb2.IngestUsageEventsResponse:
        """Send events in one call."""
        return await self.client.ingest(events)

    async def grant(self, amount: int, **terms: Any) -> Credit:
        """Grant a credit that pays from the first of February on, unless told otherwise."""
        return await grant_credit(
            self.client, self.id, amount, **{"effective_at": FEBRUARY, **terms}
        )

    async def top_up(self, amount: int) -> Credit:
        """Pay ahead; return the payment's credit."""
        return await self.credit_of(await create_payment(self.client, self.id, amount))

    async def credit_of(self, payment: payment_pb2.Payment) -> Credit:
        """Return the credit of a payment."""
        return await credit(self.client, payment.usage_credit_id)

    async def now(self, granted: Credit) -> Credit:
        """Return a credit as it stands."""
        return await credit(self.client, granted.id)

    async def bill(self, request_id: str = "run-1") -> billing_run_pb2.BillingRunResult:
        """Bill the current period at its end; return its result."""
        self.reach(moment((await self.get()).current_period_end))
        run = await self.client.run_billing(request_id)
        [result] = [each for each in run.results if each.subscription_id == self.id]
        return result

    async def bill_lines(self, request_id: str = "run-1") -> list[tuple[str, int]]:
        """Bill the current period at its end; return the lines of its invoice."""
        result = await self.bill(request_id)
        assert result.status == billing_run_pb2.BILLING_RUN_RESULT_STATUS_SUCCEEDED
        invoice = self.invoices()[-1]
        assert (invoice.id, invoice.total_amount) == (result.invoice_id, result.total_amount)
        return lines_of(invoice)

    def invoices(self) -> list[invoicing_pb2.Invoice]:
        """Return the invoices, by period."""
        return invoices_of(self.invoicing, self.client, self.id)

    async def applications(self, **filters: Any) -> list[Application]:
        """Return where credits went, oldest first."""
        return await applications(self.client, self.id, **filters)

    async def payments_of(self, **named: Credit) -> list[tuple[str, str, int]]:
        """Return which credit paid what: ``calls``, ``tokens`` or ``charges``, oldest first."""
        names = {each.id: name for name, each in named.items()}
        demands = {"": "charges", self.calls: "calls", self.tokens: "tokens"}
        return [
            (names[each.usage_credit_id], demands[each.usage_meter_id], each.amount_applied)
            for each in await self.applications()
        ]

    async def entries(self, *entry_types: int) -> list[Entry]:
        """Return the ledger entries of some types, or all."""
        return [
            entry
            for entry in await self.client.entries(self.id)
            if not entry_types or entry.entry_type in entry_types
        ]

    async def audit(self) -> None:
        """Assert that credits, balance, ledger and invoices tell the same story, to the cent."""
        posted = [entry for entry in await self.entries() if entry.status == POSTED]
        held = _value_by_credit(posted)
        listed = await credits_of(self.client, self.id)
        for each in listed:
            assert each.remaining_amount + each.held_amount == held[_account_of(each)]
        told = await self.client.balance(self.id)
        assert told == await self.client.balance(self.id, as_of=moment(told.as_of))
        assert told.credit_balance_amount == sum(held.values())
        owed = _owed_by_period(posted)
        assert told.outstanding_amount == sum(owed.values())
        assert told.net_amount == told.credit_balance_amount - told.outstanding_amount
        assert told.net_amount == sum(e.amount for e in posted if _own_legs(e) == 1)
        surplus = Counter[str]()
        for entry in posted:
            if entry.entry_type == SURPLUS_CREDITED:
                surplus[entry.billing_period_id] += entry.amount
        settled = _settled_by_period(await self.applications(kind=SETTLEMENT))
        for invoice in self.invoices():
            assert invoice.total_amount == sum(line.amount for line in invoice.line_items)
            period_id = invoice.idempotency_key
            # What settlements paid too much became a surplus, without a line of the invoice.
            carried = sum(
                line.amount for line in invoice.line_items if "Carried" in line.description
            )
            overpaid = surplus[period_id] - carried
            assert invoice.total_amount == owed[period_id] + settled[period_id] - overpaid
        assert (await self.client.trial_balance()).difference_amount == 0


async def subscribe_credited(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    *,
    base_price_amount: int = 0,
    started_at: datetime = FEBRUARY,
    is_realtime: bool = False,
    codes: Sequence[str] = ("calls", "tokens"),
    holds_late_usage: bool = False,
    unit_price: str = "1",
    included: str = "0",
) -> CreditedSubscription:
    """Subscribe to a new plan, at the start of February; the clock shows that moment."""
    clock.set(started_at)
    meter_ids = [await client.create_meter(code) for code in codes]
    plan = await client.catalog.CreatePlan(
        catalog_pb2.CreatePlanRequest(
            tenant_id=client.tenant_id,
            currency="USD",
            version=client.plan_version(
                base_price_amount=base_price_amount,
                late_usage_policy=(
                    catalog_pb2.LATE_USAGE_POLICY_HOLD
                    if holds_late_usage
                    else catalog_pb2.LATE_USAGE_POLICY_UNSPECIFIED
                ),
                components=[
                    component(meter_id, name=code, unit_price=unit_price, included=included)
                    for meter_id, code in zip(meter_ids, codes, strict=True)
                ],
            ),
        )
    )
    subscription = await client.subscribe(
        plan.plan.id,
        started_at=started_at,
        credit_application=(
            REALTIME_MODE if is_realtime else subscription_pb2.CREDIT_APPLICATION_MODE_UNSPECIFIED
        ),
    )
    component_ids = [each.id for each in plan.plan.latest_version.components]
    return CreditedSubscription(
        client, clock, invoicing, subscription.id, plan.plan.id, meter_ids, component_ids
    )


def lines_of(invoice: invoicing_pb2.Invoice) -> list[tuple[str, int]]:
    """Return description and amount of each line."""
    return [(line.description, line.amount) for line in invoice.line_items]


def _account_of(granted: Credit) -> str:
    return granted.id.replace("credit_", "account_")


def _own_legs(entry: Entry) -> int:
    return (entry.debit_account_kind in _OWN_KINDS) + (entry.credit_account_kind in _OWN_KINDS)


def _value_by_credit(posted: Iterable[Entry]) -> Counter[str]:
    value: Counter[str] = Counter()
    for entry in posted:
        if entry.debit_account_kind == ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT:
            value[entry.debit_account_id] -= abs(entry.amount)
        if entry.credit_account_kind == ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT:
            value[entry.credit_account_id] += abs(entry.amount)
    return value


def _owed_by_period(posted: Iterable[Entry]) -> Counter[str]:
    owed: Counter[str] = Counter()
    for entry in posted:
        if entry.debit_account_kind == _RECEIVABLE:
            owed[entry.billing_period_id] += abs(entry.amount)
        if entry.credit_account_kind == _RECEIVABLE:
            owed[entry.billing_period_id] -= abs(entry.amount)
    return owed


def _settled_by_period(settlements: Iterable[Application]) -> Counter[str]:
    settled: Counter[str] = Counter()
    for each in settlements:
        settled[each.billing_period_id] += each.amount_applied - each.reversed_amount
    return settled
