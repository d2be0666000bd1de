"""A history of two subscriptions, told to the service and to the reference at the same time."""

import random
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import grpc.aio

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import catalog_pb2, ledger_pb2, subscription_pb2
from tests.factories.client import BillingClient, component, error_info, moment
from tests.factories.clock import START, FakeClock
from tests.factories.correction_audit import assert_same_calculations, assert_same_corrections
from tests.factories.credit_audit import assert_balance, assert_same, assert_same_records
from tests.factories.credit_histories import Request, RunAll, Step, on_the_hour, refusals_of
from tests.factories.ledger_audit import assert_ledger_explains
from tests.factories.reference_books import Plan
from tests.factories.reference_ledger import ReferenceSubscription
from tests.factories.reference_subscription import Refused
from tests.factories.served_subscription import UNTOLD, ServedSubscription

MONTHLY_START = datetime(2026, 1, 31, 10, tzinfo=START.tzinfo)
"""A monthly subscription of the 31st: its boundaries move, and two periods are due at START."""


def started_at(plan: Plan) -> datetime:
    """When the subscription of a plan has begun."""
    return START - timedelta(days=2) if plan.interval_days else MONTHLY_START


async def subscribe(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    plan: Plan,
    *,
    is_realtime: bool,
) -> tuple[ServedSubscription, ReferenceSubscription]:
    """Create a subscription of a new plan, and the same as a reference."""
    meter_ids = [await client.create_meter(f"meter-{uuid.uuid4().hex}") for _ in plan.components]
    unit = catalog_pb2.BILLING_INTERVAL_UNIT_DAY
    if plan.interval_days == 0:
        unit = catalog_pb2.BILLING_INTERVAL_UNIT_MONTH
    answer = await client.catalog.CreatePlan(
        catalog_pb2.CreatePlanRequest(
            tenant_id=client.tenant_id,
            currency="USD",
            version=client.plan_version(
                base_price_amount=plan.base,
                late_usage_policy=catalog_pb2.LATE_USAGE_POLICY_HOLD
                if plan.holds_late_usage
                else catalog_pb2.LATE_USAGE_POLICY_UNSPECIFIED,
                interval=catalog_pb2.BillingInterval(unit=unit, count=plan.interval_days or 1),
                components=[
                    component(
                        meter_ids[number], name=f"usage {number}", unit_price=price, included=units
                    )
                    for number, (price, units) in enumerate(plan.prices)
                ],
            ),
        )
    )
    mode = subscription_pb2.CREDIT_APPLICATION_MODE_AT_BILLING
    if is_realtime:
        mode = subscription_pb2.CREDIT_APPLICATION_MODE_REALTIME
    begun_at = started_at(plan)
    created = await client.subscribe(answer.plan.id, started_at=begun_at, credit_application=mode)
    component_ids = [each.id for each in answer.plan.latest_version.components]
    served = ServedSubscription(client, clock, invoicing, created.id, meter_ids, component_ids)
    served.learn_current_period(created)
    return served, ReferenceSubscription(plan, begun_at, is_realtime)


@dataclass
class Story:
    """Two subscriptions of a new tenant, at the service and as references."""

    client: BillingClient
    clock: FakeClock
    invoicing: ReferenceInvoicingServer
    served: list[ServedSubscription]
    references: list[ReferenceSubscription]
    told: list[list[ledger_pb2.Balance]] = field(default_factory=list)

    @classmethod
    async def begin(
        cls,
        client: BillingClient,
        clock: FakeClock,
        invoicing: ReferenceInvoicingServer,
        plans: Sequence[Plan],
    ) -> "Story":
        """Subscribe to the plans: the first is billed at its periods' ends, the others realtime."""
        clock.set(START - timedelta(minutes=1))
        pairs = [
            await subscribe(client, clock, invoicing, plan, is_realtime=number > 0)
            for number, plan in enumerate(plans)
        ]
        clock.set(START)
        return cls(client, clock, invoicing, [p[0] for p in pairs], [p[1] for p in pairs])

    def go_on(self, hours: int) -> datetime:
        """Let hours pass, to a full hour; a minute for none."""
        now = self.clock.now
        self.clock.set(on_the_hour(now, hours) if hours else now + timedelta(minutes=1))
        return self.clock.now

    async def take(self, step: Step) -> None:
        """Do a step on both sides, and see that both answer the same."""
        now = self.go_on(step.hours)
        if isinstance(step, RunAll):
            await self.run(now, is_delivered=step.is_delivered)
            return
        served = self.served[step.subscription]
        reference = self.references[step.subscription]
        for request in step.requests(reference, now):
            if await self.ask(served, reference, request):
                return
            self.go_on(0)

    async def ask(
        self, served: ServedSubscription, reference: ReferenceSubscription, request: Request
    ) -> str:
        """Ask both the same; return the reason if both refuse."""
        now = self.clock.now
        try:
            answer = await served.ask(request)
        except grpc.aio.AioRpcError as error:
            reason = error_info(error).reason
            assert reason in refusals_of(request, reference, now), f"{request}: {reason}"
            return reason
        try:
            expected = request.play(reference, answer.moment or now)
        except Refused as refusal:
            raise AssertionError(f"{request} should be refused: {refusal}") from None
        if answer.told is not UNTOLD:
            assert answer.told == expected, f"{request}: {answer.told}, not {expected}"
        await served.learn_periods()
        await learn_surpluses(served, reference)
        return ""

    async def run(self, now: datetime, *, is_delivered: bool = True) -> None:
        """Bill all that is due, perhaps while the invoicing service is down."""
        await self.bill(is_delivered=is_delivered)
        for served, reference in zip(self.served, self.references, strict=True):
            reference.run(now, is_delivered=is_delivered)
            await served.learn_periods()
            await learn_surpluses(served, reference)

    async def bill(self, *, is_delivered: bool = True) -> None:
        """Let the service bill all that is due."""
        self.invoicing.error_rate = 0.0 if is_delivered else 1.0
        try:
            run = await self.client.run_billing(uuid.uuid4().hex)
        finally:
            self.invoicing.error_rate = 0.0
        reasons = {result.error_reason for result in run.results}
        assert reasons <= ({""} if is_delivered else {"INVOICING_UNAVAILABLE"}), reasons
        for served in self.served:
            served.learn_results(run.results)

    async def audit(self) -> None:
        """Fail unless the service says what the reference does, now and of an earlier moment."""
        balances = [await served.balance() for served in self.served]
        self.told.append(balances)
        earlier = random.Random(len(self.told)).choice(self.told)
        for number, served in enumerate(self.served):
            await assert_same(served, self.references[number], balances[number], self.invoicing)
            await assert_same_calculations(served, self.references[number])
            then = await served.balance(moment(earlier[number].as_of))
            assert then == earlier[number], "the past has changed"
            assert_balance(self.references[number], then)
        await self._assert_trial_balance()

    async def _assert_trial_balance(self) -> None:
        answer = await self.client.trial_balance()
        assert answer.difference_amount == 0
        expected: Counter[str] = Counter()
        for reference in self.references:
            for kind, (debit, credit) in reference.books.sides_by_kind(self.clock.now).items():
                expected[f"{kind} debit"] += debit
                expected[f"{kind} credit"] += credit
        told = sides_of(answer.lines)
        assert told.get("refund_clearing debit", 0) == told.get("refund_clearing credit", 0)
        assert {k: v for k, v in told.items() if v} == {k: v for k, v in expected.items() if v}

    async def final_audit(self) -> None:
        """Compare what takes longer to read: payments, applications, events, recalculations.

        And see that the books agree with themselves, by rules of their own.
        """
        for served, reference in zip(self.served, self.references, strict=True):
            await assert_same_records(served, reference)
            await assert_same_corrections(served, reference)
            await assert_ledger_explains(self.client, self.invoicing, served.id)


async def learn_surpluses(served: ServedSubscription, reference: ReferenceSubscription) -> None:
    """Tell the reference the exact beginnings of credits that nobody asked for."""
    found = await served.learn_credits()
    expected = reference.credits[len(served.credit_ids) - len(found) :]
    for told, credit in zip(found, expected, strict=True):
        assert moment(told.effective_at) - credit.effective_at < timedelta(seconds=1)
        credit.effective_at = credit.issued_at = moment(told.effective_at)


def sides_of(lines: Sequence[ledger_pb2.TrialBalanceLine]) -> Mapping[str, int]:
    """Return debits and credits by kind of account."""
    sides: dict[str, int] = {}
    for line in lines:
        kind = ledger_pb2.LedgerAccountKind.Name(line.account_kind)
        name = kind.removeprefix("LEDGER_ACCOUNT_KIND_").lower()
        sides[f"{name} debit"] = line.debit_amount
        sides[f"{name} credit"] = line.credit_amount
    return sides
