"""A subscription at the service: asks it what the reference is asked, and compares the two."""

import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

import grpc.aio
import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import (
    billing_run_pb2,
    calculation_pb2,
    ledger_pb2,
    refund_pb2,
    subscription_pb2,
    usage_credit_pb2,
)
from tests.factories import calculations
from tests.factories.client import BillingClient, error_info, moment, usage_event
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjust_credit, void_credit
from tests.factories.credit_histories import Request
from tests.factories.credits import (
    confirm_payment,
    confirm_refund,
    create_payment,
    create_refund,
    credit,
    credits_of,
    expire_credits,
    fail_refund,
    grant_credit,
)
from tests.factories.ledger_audit import invoices_of, is_additional
from tests.factories.payments import fail_payment
from tests.factories.reference_periods import Changes, Document, Forecast
from tests.factories.reference_subscription import Expiry
from tests.factories.usage import outcomes_of

UNTOLD: Final = object()


class Answer(NamedTuple):
    """What the service said: when it was, where that matters, and what can be compared."""

    moment: datetime | None = None
    told: Any = UNTOLD


@dataclass
class ServedSubscription:
    """One subscription at the service, with the ids of what the reference knows by numbers."""

    client: BillingClient
    clock: FakeClock
    invoicing: ReferenceInvoicingServer
    id: str
    meter_ids: Sequence[str]
    component_ids: Sequence[str]
    credit_ids: list[str] = field(default_factory=list)
    payment_ids: list[str] = field(default_factory=list)
    refund_ids: list[str] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    write_off_ids: list[str] = field(default_factory=list)
    period_ids: dict[datetime, str] = field(default_factory=dict)
    undelivered: dict[int, str] = field(default_factory=dict)

    # Asking

    async def ask(self, request: Request) -> Answer:
        """Ask what the reference is asked."""
        asked: Callable[..., Awaitable[Answer]] = getattr(self, f"_{request.action}")
        return await asked(**request.arguments)

    async def _use(self, events: Sequence[tuple[int, str, datetime]]) -> Answer:
        answer = await self.client.ingest(
            [
                usage_event(self.id, self.meter_ids[component], quantity, at)
                for component, quantity, at in events
            ]
        )
        assert set(outcomes_of(answer.results)) <= {"accepted", "rejected"}
        self.event_ids += [each.usage_event_id for each in answer.results if not each.reason]
        return Answer(told=[result.reason for result in answer.results])

    async def _grant(
        self,
        amount: int,
        effective_at: datetime | None = None,
        expires_at: datetime | None = None,
        priority: int = 0,
        covers_charges: bool = False,
        period: int | None = None,
        component: int | None = None,
    ) -> Answer:
        terms: dict[str, Any] = {"priority": priority, "covers_charges": covers_charges}
        if effective_at is not None:
            terms["effective_at"] = effective_at
        if expires_at is not None:
            terms["expires_at"] = expires_at
        if period is not None:
            terms["billing_period_id"] = self.period_id(period)
        if component is not None and amount % 2:
            terms["component_id"] = self.component_ids[component]
        elif component is not None:
            terms["usage_meter_id"] = self.meter_ids[component]
        granted = await grant_credit(self.client, self.id, amount, **terms)
        self.credit_ids.append(granted.id)
        return Answer(moment(granted.issued_at))

    async def _void(self, number: int) -> Answer:
        await void_credit(self.client, self.credit_ids[number])
        return Answer()

    async def _adjust(self, number: int, amount: int, allow_deficit: bool = False) -> Answer:
        await adjust_credit(
            self.client, self.credit_ids[number], amount, allow_deficit=allow_deficit
        )
        return Answer()

    async def _begin_payment(self, amount: int, period: int | None = None) -> Answer:
        period_id = None if period is None else self.period_id(period)
        payment = await create_payment(
            self.client, self.id, amount, billing_period_id=period_id, confirm=False
        )
        self.payment_ids.append(payment.id)
        return Answer()

    async def _confirm_payment(self, number: int, token: str) -> Answer:
        payment = await confirm_payment(
            self.client,
            self.payment_ids[number],
            processor_transaction_id=f"{token} of {self.payment_ids[number]}",
        )
        if payment.usage_credit_id not in self.credit_ids:
            self.credit_ids.append(payment.usage_credit_id)
        made = await credit(self.client, payment.usage_credit_id)
        return Answer(moment(made.issued_at))

    async def _fail_payment(self, number: int) -> Answer:
        await fail_payment(self.client, self.payment_ids[number])
        return Answer()

    async def _begin_refund(self, number: int, amount: int, policy: str) -> Answer:
        refund = await create_refund(
            self.client,
            self.payment_ids[number],
            amount,
            credit_policy=refund_pb2.RefundCreditPolicy.Value(
                f"REFUND_CREDIT_POLICY_{policy.upper()}"
            ),
        )
        self.refund_ids.append(refund.id)
        return Answer()

    async def _confirm_refund(self, number: int, token: str) -> Answer:
        refund_id = self.refund_ids[number]
        await confirm_refund(self.client, refund_id, gateway_refund_id=f"{token} of {refund_id}")
        return Answer()

    async def _fail_refund(self, number: int) -> Answer:
        await fail_refund(self.client, self.refund_ids[number])
        return Answer()

    async def _expire(self) -> Answer:
        answer = await expire_credits(self.client, self.id)
        assert answer.failed_count == 0
        amount = sum(each.amount for each in answer.expired_amounts)
        return Answer(told=Expiry(answer.expired_count, amount, answer.deferred_count))

    async def _run_one(self) -> Answer:
        result = await self.client.run_for_subscription(self.id, uuid.uuid4().hex)
        assert result.error_reason == ""
        self.learn_results([result])
        return Answer()

    async def _cancel(self, is_immediate: bool = False) -> Answer:
        before = self.clock.now
        answer = await self.client.cancel(
            self.id, immediately=is_immediate, request_id=uuid.uuid4().hex
        )
        cut_at = moment(answer.subscription.cancel_at)
        return Answer(cut_at if is_immediate and cut_at > before else None)

    # Corrections

    async def _amend(self, number: int, quantity: str) -> Answer:
        await calculations.amend(self.client, self.event_ids[number], quantity)
        return Answer()

    async def _void_event(self, number: int) -> Answer:
        await calculations.void_event(self.client, self.event_ids[number])
        return Answer()

    async def _estimate_period(self, period: int) -> Answer:
        estimate = await calculations.estimate(
            self.client, self.id, billing_period_id=self.period_id(period)
        )
        assert sum(charge.amount for charge in estimate.charges) == estimate.total_amount
        return Answer(
            told=Forecast(
                estimate.total_amount,
                estimate.receivable_amount,
                estimate.surplus_amount,
                estimate.held_amount,
            )
        )

    async def _recalculate(self, number: int, is_delivered: bool = True) -> Answer:
        request_id = uuid.uuid4().hex
        self.invoicing.error_rate = 0.0 if is_delivered else 1.0
        try:
            answer = await self._ask_recalculation(number, request_id)
            if not is_delivered and answer.recalculation.documents:
                assert not any(d.document_id for d in answer.recalculation.documents)
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await self._ask_recalculation(number, uuid.uuid4().hex)
                assert error_info(refused.value).reason == "RECALCULATION_NOT_DELIVERED"
        finally:
            self.invoicing.error_rate = 0.0
        self.undelivered[number] = request_id
        made = answer.recalculation
        return Answer(told=_changes(made) if answer.changed else None)

    async def _deliver_recalculations(self, number: int) -> Answer:
        """Repeat the last request of the period: a worker might have been there meanwhile."""
        answer = await self._ask_recalculation(number, self.undelivered[number])
        assert all(document.document_id for document in answer.recalculation.documents)
        return Answer()

    async def _ask_recalculation(
        self, number: int, request_id: str
    ) -> calculation_pb2.RecalculateBillingPeriodResponse:
        return await calculations.recalculate(
            self.client, self.id, self.period_id(number), request_id=request_id
        )

    async def _write_off(self, period: int, amount: int) -> Answer:
        made = await calculations.write_off(
            self.client, self.id, self.period_id(period), amount=amount
        )
        self.write_off_ids.append(made.id)
        return Answer()

    async def _recover(self, number: int, amount: int) -> Answer:
        await calculations.recover(self.client, self.write_off_ids[number], amount=amount)
        return Answer()

    async def learn_credits(self) -> list[usage_credit_pb2.UsageCredit]:
        """Remember the credits that nobody asked for: surpluses; return those that are new."""
        listed = await credits_of(self.client, self.id)
        found = [credit for credit in listed if credit.id not in self.credit_ids]
        self.credit_ids += [credit.id for credit in found]
        return found

    # Periods

    def period_id(self, number: int) -> str:
        """The id of a period that is known."""
        return self.period_ids[self.period_starts[number]]

    @property
    def period_starts(self) -> Sequence[datetime]:
        """The starts of the periods known so far, by number; all but later open ones are."""
        return sorted(self.period_ids)

    def learn_results(self, results: Iterable[billing_run_pb2.BillingRunResult]) -> None:
        """Remember the periods of a run."""
        for result in results:
            if result.subscription_id == self.id:
                self.period_ids[moment(result.period_start)] = result.billing_period_id

    def learn_current_period(self, subscription: subscription_pb2.Subscription) -> None:
        """Remember the oldest open period."""
        start = moment(subscription.current_period_start)
        self.period_ids[start] = subscription.current_period_id

    async def learn_periods(self) -> None:
        """Remember the periods that the service can be asked for."""
        for invoice in invoices_of(self.invoicing, self.client, self.id):
            if not is_additional(invoice):
                self.period_ids[moment(invoice.period_start)] = invoice.idempotency_key
        self.learn_current_period(await self.client.get_subscription(self.id))

    async def balance(self, as_of: datetime | None = None) -> ledger_pb2.Balance:
        """What the service says is owed and there."""
        return await self.client.balance(self.id, as_of=as_of)


def _changes(made: calculation_pb2.Recalculation) -> Changes:
    changes = Changes(
        made.raw_change_amount,
        made.credits_change_amount,
        made.recovered_amount,
        made.released_amount,
        made.surplus_amount,
        tuple(
            Document(
                calculation_pb2.RecalculationDocumentKind.Name(each.kind)
                .removeprefix("RECALCULATION_DOCUMENT_KIND_")
                .lower(),
                each.amount,
            )
            for each in made.documents
        ),
    )
    assert made.net_change_amount == changes.net
    return changes
