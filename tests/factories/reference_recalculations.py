"""What the reference knows of recalculations of invoiced periods: see ``reference_ledger``."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from tests.factories.reference_credits import CHARGES
from tests.factories.reference_payments import PaymentBooks
from tests.factories.reference_periods import (
    Calculation,
    Changes,
    Document,
    Invoice,
    Period,
    Recalculation,
)
from tests.factories.reference_subscription import refuse_if


@dataclass
class RecalculationBooks(PaymentBooks):
    """A subscription whose billed periods are put right."""

    def recalculate(
        self, now: datetime, number: int, *, is_delivered: bool = True
    ) -> Changes | None:
        """Calculate an invoiced period anew; return what that changed, or None."""
        refuse_if(
            billing_period_not_invoiced=self.periods[number].invoiced_at is None,
            recalculation_not_delivered=any(
                not each.is_delivered for each in self.periods[number].recalculations
            ),
        )
        self.bring_up_to_date(now)
        kept = copy.deepcopy(self.__dict__)
        period = self.periods[number]
        before = self.figures_of(period)
        owed_before = self.books.receivable(number, now)
        has_pending = bool(period.pending)
        raw_changes = self._take_in(period, now)
        self._reassign(period, now)
        figures = self.figures_of(period)
        if figures == before and not has_pending:
            self.__dict__ = kept
            return None
        self._supersede(period, figures)
        credits_change = sum(new[3] - old[3] for new, old in zip(figures, before, strict=True))
        restored = self._owe_no_less_than_nothing(period, now)
        lines = {f"usage {component}": amount for component, amount in raw_changes.items()}
        lines["credits"] = -credits_change
        raw_change = sum(raw_changes.values())
        net_change = raw_change - credits_change
        documents = tuple(self._documents(period, net_change, lines, owed_before))
        changes = Changes(raw_change, credits_change, *restored, documents)
        period.recalculations.append(Recalculation(changes, is_delivered or not documents))
        return changes

    def deliver_recalculations(self, now: datetime, number: int) -> None:
        """Note that all documents of a period were made."""
        for each in self.periods[number].recalculations:
            each.is_delivered = True

    def figures_of(self, period: Period) -> list[tuple[int, Decimal, int, int]]:
        """Quantity, raw usage and credits of each component."""
        return [
            (
                component,
                period.quantity(component),
                self.plan.charge(component, period.quantity(component)),
                sum(
                    each.live
                    for each in self._applied_to(period)
                    if each.kind != "settlement" and each.component == component
                ),
            )
            for component in self.plan.components
        ]

    def _take_in(self, period: Period, now: datetime) -> dict[int, int]:
        """Count what waits, and return by how much that changes the cost of each component."""
        for cost, posting in period.pending:
            posting.discarded_at = now
            period.costs.append(cost)
        changes: dict[int, int] = {}
        for component in self.plan.components:
            before = period.quantity(component)
            after = before + period.pending_quantity(component)
            period.quantities[component] = after
            change = self.plan.charge(component, after) - self.plan.charge(component, before)
            changes[component] = change
            if change:
                self._post_usage("billing_adjustment", change, period, now)
        period.pending, period.pending_quantities = [], {}
        return changes

    def _reassign(self, period: Period, now: datetime) -> None:
        """Release what credits pay too much, and let them pay what usage is left unpaid."""
        freed = self._release(period, now)
        unpaid = {key: left for key, left in self._unpaid(period).items() if key[1] is not CHARGES}
        self._consume(period, self._segments(period), unpaid, "run", now)
        self._sweep(freed, now)

    @staticmethod
    def _supersede(period: Period, figures: list[tuple[int, Decimal, int, int]]) -> None:
        for each in period.calculations:
            if each.status == "active":
                each.status = "superseded"
        for one in figures:
            period.calculations.append(Calculation("adjustment_recalculation", "active", *one))

    def _owe_no_less_than_nothing(self, period: Period, now: datetime) -> tuple[int, int, int]:
        """Take write-offs back first, then release payments; the rest is a new credit."""
        left = max(0, -self.books.receivable(period.number, now))
        recovered = self._recover_up_to(period, left, now, newest_first=True)
        left -= recovered
        released = 0
        for application in reversed(self._applied_to(period)):
            amount = min(left - released, application.live - application.reversing)
            if application.kind == "settlement" and amount > 0:
                released += amount
                self._reverse_application(application, amount, now)
                self._sweep([self.credits[application.credit]], now)
        left -= released
        if left:
            self._issue_surplus(period, left, now)
        return recovered, released, left

    def _documents(
        self, period: Period, net_change: int, lines: dict[str, int], owed_before: int
    ) -> Iterator[Document]:
        """Ask for an additional invoice, or take back from the newest ones first."""
        total = period.total + net_change
        change = max(0, total) - max(0, period.total)
        period.total = total
        if change > 0:
            lines["carried"] = change - net_change
            period.invoices.append(Invoice(change, lines))
            yield Document("invoice", change)
        left, unpaid = max(0, -change), owed_before
        for number, invoice in reversed(list(enumerate(period.invoices))):
            amount = 0 if invoice.is_void else min(left, invoice.amount - invoice.credited)
            if amount <= 0:
                continue
            # Of what is not unpaid for sure, nothing is void: somebody paid for it.
            if number > 0 and amount == invoice.amount <= unpaid:
                invoice.is_void = True
                yield Document("void", -amount)
            else:
                invoice.credited += amount
                yield Document("credit_note", -amount)
            left -= amount
            unpaid -= amount
        assert left == 0, "more is taken back than was invoiced"
