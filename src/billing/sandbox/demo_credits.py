"""The demonstration's chapter about credits: one customer, from a promotion to a refund.

Every figure is foreseen here, from prices and amounts alone, and compared with the service's.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, NamedTuple

from billing.sandbox.demo_client import DemoClient
from billing.sandbox.demo_report import CreditFigures, CreditRow, DemoReport, figure, net_amount
from billing.sandbox.figures import require_figure
from billing.sandbox.sample_data import SampleEvent, SamplePlan
from billing.v1 import billing_run_pb2, ledger_pb2, payment_pb2, usage_credit_pb2
from invoicing.v1 import invoicing_pb2

PROMOTION_MINOR: Final = 2_000
TOP_UP_MINOR: Final = 5_000
GOODWILL_MINOR: Final = 1_000
GOODWILL_SECONDS: Final = 2
CALLS_BEFORE_EXPIRY: Final = 50_000
CALLS_AFTER_EXPIRY: Final = 60_000


class CreditCustomer(NamedTuple):
    """The customer that the chapter is about: the only one with credits."""

    subscription_id: str
    plan: SamplePlan

    def cost_minor(self, calls: int) -> int:
        """What so many calls in a period cost."""
        return self.plan.components[0].cost_minor(Decimal(calls))


class CreditStory:
    """Gives, takes and asks in turn; raises FigureDiffers at the first figure that is wrong."""

    def __init__(self, client: DemoClient, report: DemoReport, customer: CreditCustomer) -> None:
        self._client = client
        self._report = report
        self._subscription_id, plan = customer
        self._currency = plan.currency
        self._meter_code = plan.components[0].meter_code
        self._goodwill_used = customer.cost_minor(CALLS_BEFORE_EXPIRY)
        self._goodwill_left = GOODWILL_MINOR - self._goodwill_used
        all_usage = customer.cost_minor(CALLS_BEFORE_EXPIRY + CALLS_AFTER_EXPIRY)
        self._top_up_used = all_usage - self._goodwill_used
        self._invoiced = 0
        self._expected = CreditFigures(0, 0, 0)
        self._rows: list[CreditRow] = []

    async def promote(self, *, effective_at: datetime) -> None:
        """Grant a promotion that pays usage from the start, and the monthly charge too."""
        await self._client.credits.grant(
            self._subscription_id,
            usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_PROMO,
            PROMOTION_MINOR,
            self._currency,
            reference="WELCOME-20",
            effective_at=effective_at,
            covers_charges=True,
        )

    async def tell(
        self, result: billing_run_pb2.BillingRunResult, invoice: invoicing_pb2.Invoice
    ) -> None:
        """Go on from the billing run to a refund, and print what became of the credits."""
        credited = [line.amount for line in invoice.line_items if line.amount < 0]
        require_figure("credits on the invoice", credited, [-PROMOTION_MINOR])
        self._invoiced = sum(line.amount for line in invoice.line_items)
        totals = (invoice.total_amount, result.total_amount)
        require_figure("total of the invoice", totals, (self._invoiced, self._invoiced))
        with self._report.step("The same customer tops up, and pays the invoice"):
            top_up = await self._pay(result.billing_period_id)
        with self._report.step("Gets goodwill that is soon over; uses before and after that"):
            await self._use_goodwill()
        with self._report.step("What is over expires; the top-up is refunded"):
            await self._expire()
            await self._refund(top_up)
        await self._close()

    async def _pay(self, billing_period_id: str) -> payment_pb2.Payment:
        """Top up, then settle what the billing run left to pay."""
        pay = self._client.credits.pay
        invoiced = self._invoiced
        await self._step(f"Billed, less the promotion of {figure(PROMOTION_MINOR)}", owed=invoiced)
        top_up = await pay(
            self._subscription_id, TOP_UP_MINOR, self._currency, reference="top-up-1"
        )
        await self._step(
            f"Top-up of {figure(TOP_UP_MINOR)}", credit=TOP_UP_MINOR, spendable=TOP_UP_MINOR
        )
        payment = await pay(
            self._subscription_id,
            invoiced,
            self._currency,
            reference="settlement-1",
            billing_period_id=billing_period_id,
        )
        require_figure("settled of the payment", payment.settled_amount, invoiced)
        await self._step(f"Payment of {figure(invoiced)} settles the invoice", owed=-invoiced)
        return top_up

    async def _use_goodwill(self) -> None:
        """Grant goodwill for a moment, use some of it, and use the top-up after that."""
        goodwill = await self._client.credits.grant(
            self._subscription_id,
            usage_credit_pb2.USAGE_CREDIT_TYPE_GRANTED_GOODWILL,
            GOODWILL_MINOR,
            self._currency,
            reference="TICKET-4711",
            expires_at=datetime.now(UTC) + timedelta(seconds=GOODWILL_SECONDS),
        )
        await self._step(
            f"Goodwill of {figure(GOODWILL_MINOR)}, for {GOODWILL_SECONDS} seconds",
            credit=GOODWILL_MINOR,
            spendable=GOODWILL_MINOR,
        )
        # The moment of the grant is before the expiry, however slow this machine is.
        await self._use(CALLS_BEFORE_EXPIRY, goodwill.effective_at.ToDatetime(tzinfo=UTC))
        over_at = goodwill.expires_at.ToDatetime(tzinfo=UTC)
        await asyncio.sleep(max(0.0, (over_at - datetime.now(UTC)).total_seconds()) + 0.05)
        used, left = self._goodwill_used, self._goodwill_left
        await self._step(
            f"It paid usage of {figure(used)}; now it is over",
            credit=-used,
            spendable=-used - left,
        )
        await self._use(CALLS_AFTER_EXPIRY, over_at)
        used = self._top_up_used
        await self._step(
            f"Usage of {figure(used)} is paid by the top-up", credit=-used, spendable=-used
        )

    async def _expire(self) -> None:
        """Expire what is left of the goodwill."""
        left = self._goodwill_left
        outcome = await self._client.credits.expire()
        counts = (outcome.expired_count, outcome.deferred_count, outcome.failed_count)
        require_figure("credits expired, deferred, failed", counts, (1, 0, 0))
        amounts = [(expired.currency, expired.amount) for expired in outcome.expired_amounts]
        require_figure("amounts expired", amounts, [(self._currency, left)])
        await self._step(f"ExpireCredits: {figure(left)} of the goodwill go", credit=-left)

    async def _refund(self, top_up: payment_pb2.Payment) -> None:
        """Give all of the top-up's money back: what is unused is taken back, the rest is given."""
        credits_ = self._client.credits
        used, unused = self._top_up_used, TOP_UP_MINOR - self._top_up_used
        refund = await credits_.begin_refund(
            top_up.id, TOP_UP_MINOR, self._currency, reference="refund-1"
        )
        parts = (refund.clawed_back_amount, refund.absorbed_amount)
        require_figure("parts of the refund", parts, (unused, used))
        await self._step(
            f"Refund of {figure(TOP_UP_MINOR)} begins: {figure(unused)} are held",
            spendable=-unused,
        )
        await credits_.confirm_refund(refund.id, reference="refund-1")
        await self._step(f"Refund confirmed: {figure(used)} of it are given", credit=-unused)

    async def _close(self) -> None:
        """Compare credits, entries and accounts with what was foreseen, and print them."""
        credits_ = await self._client.credits.list_credits(self._subscription_id)
        used: Counter[str] = Counter()
        for application in await self._client.credits.list_applications(self._subscription_id):
            used[application.usage_credit_id] += application.amount_applied
        require_figure(
            "issued, used and left of the credits",
            [(c.issued_amount, used[c.id], c.remaining_amount + c.held_amount) for c in credits_],
            [
                (PROMOTION_MINOR, PROMOTION_MINOR, 0),
                (TOP_UP_MINOR, self._top_up_used, 0),
                (self._invoiced, self._invoiced, 0),
                (GOODWILL_MINOR, self._goodwill_used, 0),
            ],
        )
        entries = await self._client.list_entries(self._subscription_id)
        require_figure("net of the entries", net_amount(entries), self._expected.net)
        await self._check_accounts()
        self._report.credit_story(self._rows, self._currency)
        self._report.credits(credits_, used)

    async def _check_accounts(self) -> None:
        """Compare the debits and credits of the accounts that only this customer has moved."""
        paid = TOP_UP_MINOR + self._invoiced
        issued = PROMOTION_MINOR + GOODWILL_MINOR + paid
        given = PROMOTION_MINOR + GOODWILL_MINOR
        balance = await self._client.get_trial_balance()
        found = {
            line.account_kind: (line.debit_amount, line.credit_amount) for line in balance.lines
        }
        for kind, moved in (
            (ledger_pb2.LEDGER_ACCOUNT_KIND_CREDIT, (issued - self._expected.credit, issued)),
            (ledger_pb2.LEDGER_ACCOUNT_KIND_CASH, (paid, TOP_UP_MINOR)),
            (ledger_pb2.LEDGER_ACCOUNT_KIND_PROMOTIONAL_EXPENSE, (given, self._goodwill_left)),
            (ledger_pb2.LEDGER_ACCOUNT_KIND_REFUND_CLEARING, (TOP_UP_MINOR, TOP_UP_MINOR)),
            (ledger_pb2.LEDGER_ACCOUNT_KIND_REFUNDS_AND_ALLOWANCES, (self._top_up_used, 0)),
        ):
            require_figure(ledger_pb2.LedgerAccountKind.Name(kind), found.get(kind), moved)
        require_figure("debits less credits", balance.difference_amount, 0)

    async def _use(self, calls: int, moment: datetime) -> None:
        """Send one event of so many calls."""
        event = SampleEvent(
            idempotency_key=f"calls-{calls}",
            subscription=0,
            meter_code=self._meter_code,
            quantity=str(calls),
            event_timestamp=moment,
            region="eu-west",
        )
        outcomes = await self._client.ingest([event], [self._subscription_id])
        require_figure("accepted events", outcomes["accepted"], 1)

    async def _step(self, text: str, *, credit: int = 0, spendable: int = 0, owed: int = 0) -> None:
        """Add up what there must be now, compare it with GetBalance, and note it."""
        self._expected = CreditFigures(
            self._expected.credit + credit,
            self._expected.spendable + spendable,
            self._expected.owed + owed,
        )
        balance = await self._client.get_balance(self._subscription_id)
        found = CreditFigures(
            balance.credit_balance_amount,
            balance.available_credit_amount,
            balance.outstanding_amount,
        )
        expected = (self._expected, self._expected.net)
        require_figure(f"balance after '{text}'", (found, balance.net_amount), expected)
        self._rows.append(CreditRow(text, self._expected))
