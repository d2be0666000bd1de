"""The demonstration's chapter about a mistake: a billed month is put right, without rewriting it.

Every figure is foreseen here, from prices and quantities alone, and compared with the service's.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Final

from billing.sandbox.demo_client import DemoClient
from billing.sandbox.demo_report import DemoReport, StatementRow
from billing.sandbox.figures import require_figure
from billing.sandbox.sample_data import SampleEvent, SamplePlan
from billing.v1 import billing_run_pb2, calculation_pb2, ledger_pb2

MISTAKE_KEY: Final = "gateway-retry-storm"
MISTAKE_CALLS: Final = 400_000
SHOWN_EVENTS: Final = 3
REASON: Final = "The gateway counted a retry storm"


class CorrectionStory:
    """Takes a wrong event out of a billed month; raises FigureDiffers at the first wrong figure."""

    def __init__(
        self,
        client: DemoClient,
        report: DemoReport,
        *,
        number: int,
        subscription_id: str,
        plan: SamplePlan,
    ) -> None:
        self._client = client
        self._report = report
        self._number = number
        self._subscription_id = subscription_id
        self._component = plan.components[0]

    def mistake(self, moment: datetime) -> SampleEvent:
        """Return the event that never happened."""
        return SampleEvent(
            idempotency_key=MISTAKE_KEY,
            subscription=self._number,
            meter_code=self._component.meter_code,
            quantity=str(MISTAKE_CALLS),
            event_timestamp=moment,
            region="eu-west",
        )

    async def tell(
        self, result: billing_run_pb2.BillingRunResult, events: Iterable[SampleEvent]
    ) -> None:
        """Go on from the billing run to a credit note, and print what that changed."""
        period_id = result.billing_period_id
        change = self._foresee(events)
        corrections = self._client.corrections
        before = await corrections.get_statement(self._subscription_id, period_id)
        owed = await self._outstanding()
        with self._report.step("Another customer: one event of the billed month never happened"):
            event = await corrections.find_event(
                self._subscription_id, period_id, idempotency_key=MISTAKE_KEY
            )
            assert event is not None, "it was sent"
            correction = await corrections.void_event(event.id, reason=REASON)
            require_figure("what the void will change", correction.cost_change_amount, change)
            require_figure("owed until the recalculation", await self._outstanding(), owed)
        with self._report.step("The billed period is recalculated: a credit note"):
            answer = await corrections.recalculate(
                self._subscription_id, period_id, reason=REASON, request_id="demo-recalculation"
            )
            await self._check(answer, result, change)
            require_figure("owed after it", await self._outstanding(), owed + change)
        again = await corrections.recalculate(
            self._subscription_id, period_id, reason=REASON, request_id="demo-recalculation-2"
        )
        require_figure("whether recalculating again changes anything", again.changed, False)
        after = await corrections.get_statement(self._subscription_id, period_id)
        closing = (before.closing_balance.net_amount, after.closing_balance.net_amount)
        require_figure("change of the statement", closing[1] - closing[0], -change)
        self._report.recalculation(answer.recalculation)
        self._report.statements(_rows(before), _rows(after), before.currency)
        await self._explain(period_id)

    async def _explain(self, billing_period_id: str) -> None:
        """Print where the invoice's line comes from: every level adds up to the one above."""
        charges = await self._client.corrections.list_charges(
            self._subscription_id, billing_period_id
        )
        line = next(c for c in charges if c.component_id and c.billing_run_id)
        explained = await self._client.corrections.explain_charge(line.id, event_count=SHOWN_EVENTS)
        totals = explained.usage.totals
        costs = totals.event_cost_amount + totals.correction_cost_amount
        require_figure("cost of the line's events", costs, line.amount)
        self._report.explanation(explained)

    def _foresee(self, events: Iterable[SampleEvent]) -> int:
        """Return what the month costs more without the mistake: less."""
        calls = sum(
            (
                Decimal(event.quantity)
                for event in events
                if event.subscription == self._number
                and event.meter_code == self._component.meter_code
            ),
            Decimal(0),
        )
        right = self._component.cost_minor(calls - MISTAKE_CALLS)
        return right - self._component.cost_minor(calls)

    async def _check(
        self,
        answer: calculation_pb2.RecalculateBillingPeriodResponse,
        result: billing_run_pb2.BillingRunResult,
        change: int,
    ) -> None:
        """Compare the recalculation, and the invoice that its credit note takes back from."""
        recalculation = answer.recalculation
        require_figure("change of usage", recalculation.raw_change_amount, change)
        require_figure("change of net", recalculation.net_change_amount, change)
        kinds = [(d.kind, d.amount, d.invoice_id) for d in recalculation.documents]
        credit_note = calculation_pb2.RECALCULATION_DOCUMENT_KIND_CREDIT_NOTE
        require_figure("documents", kinds, [(credit_note, change, result.invoice_id)])
        invoice = await self._client.get_invoice(result.invoice_id)
        require_figure("credited of the invoice", invoice.credited_amount, -change)

    async def _outstanding(self) -> int:
        balance = await self._client.get_balance(self._subscription_id)
        return balance.outstanding_amount


def _rows(statement: ledger_pb2.GetStatementResponse) -> list[StatementRow]:
    """Return the movements of a statement by type, between its opening and its closing balance."""
    counts: dict[str, int] = {}
    amounts: dict[str, int] = {}
    for movement in statement.movements:
        entry = movement.ledger_entry
        name = ledger_pb2.LedgerEntryType.Name(entry.entry_type)
        name = name.removeprefix("LEDGER_ENTRY_TYPE_").lower().replace("_", " ")
        counts[name] = counts.get(name, 0) + 1
        amounts[name] = amounts.get(name, 0) + entry.amount
    opening, closing = statement.opening_balance.net_amount, statement.closing_balance.net_amount
    require_figure("opening balance and movements", opening + sum(amounts.values()), closing)
    return [
        StatementRow("opening balance", None, opening),
        *[StatementRow(name, counts[name], amounts[name]) for name in amounts],
        StatementRow("closing balance", None, closing),
    ]
