"""What the reference knows of payments and refunds: see ``reference_ledger``."""

from dataclasses import dataclass, field
from datetime import datetime

from tests.factories.reference_books import (
    ALLOWANCES,
    BAD_DEBT,
    CASH,
    CLEARING,
    CREDIT,
    RECEIVABLE,
    Account,
    Posting,
)
from tests.factories.reference_credits import CHARGES, Application, Credit, Segment, Taking
from tests.factories.reference_periods import Period
from tests.factories.reference_subscription import refuse_if
from tests.factories.reference_usage import UsageBooks


@dataclass
class Payment:
    """One payment; a settlement has a period."""

    number: int
    amount: int
    period: int | None
    status: str = "pending"
    token: str = ""
    credit: int | None = None


@dataclass
class Refund:
    """One refund with its pending postings. ``reversals`` are (application's number, amount)."""

    number: int
    payment: int
    amount: int
    status: str = "pending"
    token: str = ""
    clawed_back: int = 0
    deficit: int = 0
    reversals: list[tuple[int, int]] = field(default_factory=list)
    clawback: Posting | None = None
    pending: list[Posting] = field(default_factory=list)

    @property
    def reversed(self) -> int:
        """What it takes back of what the payment settled."""
        return sum(amount for _, amount in self.reversals)

    @property
    def absorbed(self) -> int:
        """What nothing is taken back for."""
        return self.amount - self.clawed_back - self.reversed - self.deficit


@dataclass
class WriteOff:
    """What was given up of a period, and what of it is owed again."""

    number: int
    period: int
    amount: int
    recovered: int = 0

    @property
    def left(self) -> int:
        """What is still given up."""
        return self.amount - self.recovered


@dataclass
class PaymentBooks(UsageBooks):
    """A subscription's payments, refunds and write-offs."""

    payments: list[Payment] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)
    write_offs: list[WriteOff] = field(default_factory=list)

    # Payments

    def begin_payment(self, now: datetime, amount: int, *, period: int | None = None) -> Payment:
        """Begin a top-up, or the settlement of a period."""
        refuse_if(subscription_already_cancelled=period is None and self.is_cancelled)
        payment = Payment(len(self.payments), amount, period)
        self.payments.append(payment)
        return payment

    def confirm_payment(self, now: datetime, number: int, token: str = "") -> None:
        """Make the payment's credit; a settlement pays at once what its period owes."""
        payment = self.payments[number]
        if payment.status == "succeeded" and payment.token == token:
            return
        refuse_if(
            payment_confirmed_otherwise=payment.status == "succeeded",
            payment_not_pending=payment.status == "failed",
        )
        if payment.period is not None:
            self.bring_up_to_date(now)
        credit = Credit(
            number=len(self.credits),
            is_paid=True,
            issued=payment.amount,
            effective_at=now,
            expires_at=None,
            issued_at=now,
        )
        payment.status, payment.token, payment.credit = "succeeded", token, credit.number
        self._issue(credit, "payment_recognized", CASH, now)
        if payment.period is not None:
            self._settle(self.periods[payment.period], credit, now)

    def _settle(self, period: Period, credit: Credit, now: datetime) -> None:
        """Pay usage, then charges: what is owed, and then what was given up before."""
        owed = max(0, self.books.receivable(period.number, now))
        left = min(credit.remaining, owed)
        left += self._recover_up_to(period, credit.remaining - left, now, newest_first=False)
        unpaid = self._unpaid(period)
        whole = Segment(period.start, period.end)
        for component in [*self.plan.components, CHARGES]:
            demand = sum(amount for (_, each), amount in unpaid.items() if each == component)
            amount = left if component is CHARGES else min(left, demand)
            if amount > 0:
                left -= amount
                credit.remaining -= amount
                self._apply(Taking(credit, whole, component, amount), period, "settlement", now)

    def fail_payment(self, now: datetime, number: int) -> None:
        """Note that a payment failed."""
        payment = self.payments[number]
        refuse_if(payment_not_pending=payment.status == "succeeded")
        payment.status = "failed"

    def settled(self, payment: Payment) -> int:
        """What a payment paid of its period at once, and still pays."""
        return sum(each.live for each in self._settlements(payment))

    def _settlements(self, payment: Payment) -> list[Application]:
        return [
            each
            for each in self.applications
            if each.kind == "settlement" and each.credit == payment.credit
        ]

    def refunded(self, payment: Payment) -> int:
        """What was or is being refunded of a payment."""
        return sum(
            refund.amount
            for refund in self.refunds
            if refund.payment == payment.number and refund.status != "failed"
        )

    # Refunds

    def begin_refund(self, now: datetime, number: int, amount: int, policy: str) -> Refund:
        """Begin a refund: ``revert_unused``, ``revert_all`` or ``keep``."""
        payment = self.payments[number]
        refuse_if(payment_not_succeeded=payment.status != "succeeded")
        refuse_if(refund_exceeds_payment=amount + self.refunded(payment) > payment.amount)
        assert payment.credit is not None
        self.bring_up_to_date(now)
        credit = self.credits[payment.credit]
        refund = Refund(len(self.refunds), number, amount)
        self.refunds.append(refund)
        if policy != "keep":
            refund.clawed_back = min(amount, credit.remaining)
            credit.remaining -= refund.clawed_back
            credit.held += refund.clawed_back
        if policy == "revert_all":
            self._reverse(refund, payment, now)
            refund.deficit = refund.absorbed
        self._write_clawback(refund, credit, now)
        if refund.deficit:
            deficit = self._charge_deficit(refund.deficit, CLEARING, now, is_pending=True)
            refund.pending.append(deficit)
        self._write_payback(refund, now)
        return refund

    def _reverse(self, refund: Refund, payment: Payment, now: datetime) -> None:
        """Take back what the payment settled, the newest first."""
        left = refund.amount - refund.clawed_back
        for number in reversed(range(len(self.applications))):
            application = self.applications[number]
            if application.kind != "settlement" or application.credit != payment.credit:
                continue
            amount = min(left, application.live - application.reversing)
            if amount > 0:
                left -= amount
                application.reversing += amount
                refund.reversals.append((number, amount))
                refund.pending.append(
                    self.books.post(
                        "credit_application_reversed",
                        -amount,
                        Account(RECEIVABLE),
                        Account(CREDIT, application.credit),
                        now,
                        period=application.period,
                        is_pending=True,
                    )
                )

    def _write_clawback(self, refund: Refund, credit: Credit, now: datetime) -> None:
        """Write what goes from the credit to the refund: all that it had or gets back."""
        refund.clawback = None
        amount = refund.clawed_back + refund.reversed
        if amount:
            refund.clawback = self.books.post(
                "credit_balance_adjusted",
                -amount,
                Account(CREDIT, credit.number),
                Account(CLEARING),
                now,
                is_pending=True,
            )

    def _write_payback(self, refund: Refund, now: datetime) -> None:
        posting = self.books.post(
            "payment_refunded",
            -refund.amount,
            Account(CLEARING),
            Account(CASH),
            now,
            is_pending=True,
        )
        refund.pending.append(posting)

    def _let_go(self, refund: Refund, credit: Credit, now: datetime) -> None:
        """Give back what a pending refund holds of a credit: the refund bears it itself."""
        if refund.clawback is None or refund.clawed_back == 0:
            return
        refund.clawback.discarded_at = now
        credit.held -= refund.clawed_back
        credit.remaining += refund.clawed_back
        refund.clawed_back = 0
        self._write_clawback(refund, credit, now)

    def confirm_refund(self, now: datetime, number: int, token: str = "") -> None:
        """Post what a refund holds, and what it has to bear itself."""
        refund = self.refunds[number]
        if refund.status == "succeeded" and refund.token == token:
            return
        refuse_if(
            refund_confirmed_otherwise=refund.status == "succeeded",
            refund_not_pending=refund.status == "failed",
        )
        self.bring_up_to_date(now)
        refund.status, refund.token = "succeeded", token
        for posting in self._pending_of(refund):
            if posting.entry_type == "credit_deficit_charged":
                posting.discarded_at = now
                self._charge_deficit(refund.deficit, CLEARING, now)
            else:
                posting.posted_at = now
        self._credit_of(refund).held -= refund.clawed_back
        for application, amount in refund.reversals:
            self.applications[application].reversing -= amount
            self.applications[application].reversed += amount
        if refund.absorbed:
            self.books.post(
                "refund_absorbed", refund.absorbed, Account(ALLOWANCES), Account(CLEARING), now
            )

    def _pending_of(self, refund: Refund) -> list[Posting]:
        clawback = [] if refund.clawback is None else [refund.clawback]
        return refund.pending + clawback

    def _credit_of(self, refund: Refund) -> Credit:
        number = self.payments[refund.payment].credit
        assert number is not None
        return self.credits[number]

    def fail_refund(self, now: datetime, number: int) -> None:
        """Give back what a refund holds; a credit that died meanwhile loses it at once."""
        refund = self.refunds[number]
        if refund.status == "failed":
            return
        refuse_if(refund_not_pending=refund.status == "succeeded")
        self.bring_up_to_date(now)
        refund.status = "failed"
        for posting in self._pending_of(refund):
            posting.discarded_at = now
        for application, amount in refund.reversals:
            self.applications[application].reversing -= amount
        credit = self._credit_of(refund)
        credit.held -= refund.clawed_back
        credit.remaining += refund.clawed_back
        if refund.clawed_back and credit.expired_at is not None:
            amount, credit.remaining = credit.remaining, 0
            self._write_off(credit, "credit_grant_expired", amount, now)

    # Write-offs

    def write_off(self, now: datetime, period: int, amount: int = 0) -> None:
        """Give up an amount of what an invoiced period owes; zero is all of it."""
        refuse_if(billing_period_not_invoiced=self.periods[period].invoiced_at is None)
        owed = self.books.receivable(period, now)
        wanted = amount or owed
        refuse_if(write_off_exceeds_receivable=wanted > owed or wanted <= 0)
        self.write_offs.append(WriteOff(len(self.write_offs), period, wanted))
        self.books.post(
            "receivable_written_off",
            wanted,
            Account(BAD_DEBT),
            Account(RECEIVABLE),
            now,
            period=period,
        )

    def recover(self, now: datetime, number: int, amount: int = 0) -> None:
        """Take a write-off back, or a part of it; zero is all that is left of it."""
        write_off = self.write_offs[number]
        wanted = amount or write_off.left
        refuse_if(write_off_exceeded=wanted > write_off.left or wanted <= 0)
        self._recover(write_off, wanted, now)

    def _recover(self, write_off: WriteOff, amount: int, now: datetime) -> None:
        write_off.recovered += amount
        self.books.post(
            "receivable_written_off",
            -amount,
            Account(RECEIVABLE),
            Account(BAD_DEBT),
            now,
            period=write_off.period,
        )

    def _recover_up_to(
        self, period: Period, limit: int, now: datetime, *, newest_first: bool
    ) -> int:
        """Take back as much of a period's write-offs as is told; return how much that was."""
        left = limit
        for write_off in sorted(self.write_offs, key=lambda w: w.number, reverse=newest_first):
            amount = min(left, write_off.left) if write_off.period == period.number else 0
            if amount > 0:
                left -= amount
                self._recover(write_off, amount, now)
        return limit - left
