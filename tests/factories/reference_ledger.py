"""A subscription in plain Python: what the service must answer, written from its design alone.

Nothing of the service is used here: plain integers in minor units, decimals, datetimes in UTC.
Periods, credits, payments and refunds are known by their numbers, in the order of their making.
Every operation takes the moment it happens at, and raises Refused where it must be refused.
"""

import copy
from dataclasses import dataclass
from datetime import datetime

from tests.factories.reference_books import (
    CREDIT,
    PROMOTIONAL_EXPENSE,
    RECEIVABLE,
    SUBSCRIPTION_REVENUE,
    Account,
)
from tests.factories.reference_credits import CHARGES, Application, Credit
from tests.factories.reference_periods import (
    Calculation,
    Estimate,
    Forecast,
    Hold,
    Invoice,
    Period,
)
from tests.factories.reference_recalculations import RecalculationBooks
from tests.factories.reference_subscription import refuse_if


@dataclass
class ReferenceSubscription(RecalculationBooks):
    """One subscription, and everything that can happen to it."""

    # Credits

    def grant(
        self,
        now: datetime,
        amount: int,
        *,
        effective_at: datetime | None = None,
        expires_at: datetime | None = None,
        priority: int = 0,
        covers_charges: bool = False,
        period: int | None = None,
        component: int | None = None,
    ) -> Credit:
        """Grant a promotion, from now on if no beginning is told."""
        begins_at = effective_at or now
        refuse_if(
            subscription_already_cancelled=self.is_cancelled,
            field_invalid=(covers_charges and component is not None)
            or (expires_at is not None and expires_at <= max(now, begins_at)),
            billing_period_closed=period is not None and self.periods[period].billed_at is not None,
            credit_scope_invalid=period is not None
            and not self._is_ever_in_effect(self.periods[period], begins_at, expires_at),
        )
        if begins_at < now:
            self.bring_up_to_date(now)
        credit = Credit(
            number=len(self.credits),
            is_paid=False,
            issued=amount,
            effective_at=begins_at,
            expires_at=expires_at,
            issued_at=now,
            priority=priority,
            covers_charges=covers_charges,
            period=period,
            component=component,
        )
        self._issue(credit, "credit_grant_recognized", PROMOTIONAL_EXPENSE, now)
        return credit

    @staticmethod
    def _is_ever_in_effect(
        period: Period, begins_at: datetime, expires_at: datetime | None
    ) -> bool:
        return begins_at < period.end and (expires_at is None or expires_at > period.start)

    def void(self, now: datetime, number: int) -> None:
        """Take what is left of a credit, and what pending refunds hold of it."""
        with self._up_to_date(now):
            credit = self.credits[number]
            self._refuse_dead(credit, now, credit_fully_used=credit.remaining + credit.held == 0)
            for refund in self.refunds:
                if refund.status == "pending" and self.payments[refund.payment].credit == number:
                    self._let_go(refund, credit, now)
            amount, credit.remaining = credit.remaining, 0
            credit.voided_at = now
            self._write_off(credit, "credit_balance_adjusted", amount, now)

    def _refuse_dead(self, credit: Credit, now: datetime, **further: bool) -> None:
        refuse_if(
            credit_already_voided=credit.voided_at is not None,
            credit_already_expired=credit.expired_at is not None or credit.is_over(now),
            **further,
        )

    def adjust(
        self, now: datetime, number: int, amount: int, *, allow_deficit: bool = False
    ) -> None:
        """Add an amount to a credit; a negative one takes back, and may charge a deficit."""
        with self._up_to_date(now):
            credit = self.credits[number]
            is_short = -amount > credit.remaining and not allow_deficit
            self._refuse_dead(credit, now, credit_balance_insufficient=is_short)
            account = Account(CREDIT, number)
            if amount > 0:
                credit.remaining += amount
                self.books.post(
                    "credit_balance_adjusted", amount, Account(PROMOTIONAL_EXPENSE), account, now
                )
                return
            taken = min(-amount, credit.remaining)
            credit.remaining -= taken
            if taken:
                self._write_off(credit, "credit_balance_adjusted", taken, now)
            if -amount > taken:
                self._charge_deficit(-amount - taken, PROMOTIONAL_EXPENSE, now)

    # Billing

    def run(self, now: datetime, *, is_delivered: bool = True) -> int:
        """Bill every due period; return how many. The invoicing service may be down."""
        count = 0
        while self.is_due(now):
            self._bill(self.open_periods[0], now)
            count += 1
        if is_delivered:
            self.deliver(now)
        return count

    def is_due(self, now: datetime) -> bool:
        """Whether the oldest open period has ended."""
        return self.oldest_open is not None and self.oldest_open.end <= now

    def run_one(self, now: datetime) -> None:
        """Bill the oldest due period, or else deliver the oldest invoice that was not."""
        undelivered = [p for p in self.periods if p.billed_at and not p.invoiced_at]
        if self.is_due(now):
            self._bill(self.open_periods[0], now)
            undelivered = [p for p in self.periods if p.billed_at][-1:]
        refuse_if(
            subscription_not_active=not undelivered and self.is_cancelled,
            no_billing_period_due=not undelivered and not self.is_cancelled,
        )
        undelivered[0].invoiced_at = now

    def deliver(self, now: datetime) -> None:
        """Note that all invoices were made."""
        for period in self.periods:
            if period.billed_at is not None and period.invoiced_at is None:
                period.invoiced_at = now

    def _bill(self, period: Period, now: datetime) -> None:
        self.discard_estimate(now, "superseded")
        deficits = period.charges
        period.charges += self.plan.base
        self.books.post(
            "charge_billed",
            -self.plan.base,
            Account(RECEIVABLE),
            Account(SUBSCRIPTION_REVENUE),
            now,
            period=period.number,
        )
        self._consume(period, self._segments(period), self._unpaid(period), "run", now)
        for credit in self.credits:
            if credit.is_over(period.end) and credit.remaining > 0:
                self._expire(credit, now)
        self._write_invoice(period, deficits)
        paid_too_much = -self.books.receivable(period.number, now)
        if paid_too_much > 0:
            self._issue_surplus(period, paid_too_much, now)
        period.billed_at = now
        if self.cancel_at is not None and period.end >= self.cancel_at:
            self.is_cancelled = True
        elif not self.open_periods:
            self._open_following()

    def _write_invoice(self, period: Period, deficits: int) -> None:
        credited = sum(each.live for each in self._applied_to(period) if each.kind != "settlement")
        period.invoice = {"recurring": self.plan.base, "deficit": deficits, "credits": -credited}
        for figures in self.figures_of(period):
            period.calculations.append(Calculation("billing_run", "active", *figures))
            period.invoice[f"usage {figures[0]}"] = figures[2]
        period.total = sum(period.invoice.values())
        period.invoices.append(Invoice(period.total, period.invoice))

    # Estimates

    def estimate_period(self, now: datetime, period: int) -> Forecast:
        """Tell what billing the oldest open period now would come to, and hold its credits."""
        current = self.periods[period]
        refuse_if(billing_period_not_open=current is not self.oldest_open)
        self.discard_estimate(now, "superseded")
        told = copy.deepcopy(self)
        told._bill(told.periods[period], now)
        applied = told.applications[len(self.applications) :]
        held = sum(each.amount for each in applied)
        owed = self.books.receivable(period, now) + self.plan.base - held
        self.estimate = Estimate(
            [self._hold(each, now) for each in applied],
            [
                Calculation("interim_estimate", "pending_confirmation", *figures)
                for figures in told.periods[period].active_figures()
            ],
        )
        current.calculations += self.estimate.calculations
        return Forecast(told.periods[period].total, max(0, owed), max(0, -owed), held)

    def _hold(self, application: Application, now: datetime) -> Hold:
        credit = self.credits[application.credit]
        credit.remaining -= application.amount
        credit.held += application.amount
        target = "charge" if application.component is CHARGES else "usage"
        posting = self.books.post(
            f"credit_applied_to_{target}",
            application.amount,
            Account(CREDIT, credit.number),
            Account(RECEIVABLE),
            now,
            period=application.period,
            is_pending=True,
        )
        return Hold(credit.number, application.amount, posting)

    def cancel(self, now: datetime, *, is_immediate: bool = False) -> None:
        """End the subscription with its last period, or cut that and bill all at once."""
        refuse_if(subscription_already_cancelled=self.is_cancelled)
        if self.cancel_at is None:
            self._open_until(now)
        last = self.periods[-1]
        if is_immediate:
            last.end = min(last.end, now)
        self.cancel_at = last.end
        if is_immediate:
            for period in self.open_periods:
                self._bill(period, now)
                period.invoiced_at = now
