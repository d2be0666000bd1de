"""Rows of corrections, recalculations, estimates and write-offs to add to a book by hand."""

import uuid
from dataclasses import dataclass
from uuid import UUID

from tests.factories.clock import START
from tests.factories.ledger_book import Connection, LedgerBook, Row, add_event, insert

PART = 7


@dataclass(frozen=True)
class CorrectionRows:
    """Adds rows to a book in a transaction, each valid unless the columns say otherwise.

    All are of the book's open period.
    """

    connection: Connection
    book: LedgerBook

    async def add(self, table: str, row: Row) -> Row:
        """Add a row to a table, and return it."""
        await insert(self.connection, table, row)
        return row

    def correction(self, usage_event_id: UUID, **columns: object) -> Row:
        """An amendment of an event that makes it cost more."""
        return (
            self._own(self.book)
            | {
                "usage_event_id": usage_event_id,
                "correction_type": "amendment",
                "quantity_before": 1,
                "quantity_after": 3,
                "cost_change_amount": PART,
                "currency": "USD",
                "reason": "By hand",
                "ledger_transaction_id": self.book.ledger_transaction_id,
                "corrected_at": START,
            }
            | columns
        )

    async def add_correction(self, **columns: object) -> Row:
        """Add an amendment of a new event."""
        event_id = await add_event(self.connection, self.book)
        row = self.correction(event_id, **columns)
        return await self.add("usage_event_corrections", row)

    def recalculation(self, **columns: object) -> Row:
        """A recalculation that changes nothing that is owed."""
        return (
            self._own(self.book)
            | {
                "ledger_transaction_id": self.book.ledger_transaction_id,
                "currency": "USD",
                "reason": "By hand",
                "raw_change_amount": PART,
                "credits_change_amount": PART,
                "net_change_amount": 0,
                "recovered_amount": 0,
                "released_amount": 0,
                "surplus_amount": 0,
                "created_at": START,
            }
            | columns
        )

    def document(self, recalculation_id: UUID, **columns: object) -> Row:
        """An additional invoice that is not delivered yet."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "recalculation_id": recalculation_id,
                "position": 0,
                "kind": "invoice",
                "amount": PART,
                "currency": "USD",
                "request": {},
                "created_at": START,
            }
            | columns
        )

    async def add_document(self, **columns: object) -> Row:
        """Add a document of a new recalculation."""
        recalculation = await self.add("recalculations", self.recalculation())
        return await self.add(
            "recalculation_documents", self.document(recalculation["id"], **columns)
        )

    def estimate(self, **columns: object) -> Row:
        """A calculation of an estimate that stands."""
        return (
            self._own(self.book)
            | {
                "calculation_run_id": uuid.uuid4(),
                "component_id": self.book.component_id,
                "usage_meter_id": self.book.usage_meter_id,
                "calculated_at": START,
                "calculation_type": "interim_estimate",
                "total_quantity": 1,
                "billable_quantity": 1,
                "unit_price": "1.5",
                "total_raw_usage_amount": 2,
                "credits_applied_amount": 0,
                "net_billed_amount": 2,
                "currency": "USD",
                "status": "pending_confirmation",
            }
            | columns
        )

    async def add_recalculated(self, **columns: object) -> Row:
        """Add the active calculation of a new recalculation."""
        recalculation = await self.add("recalculations", self.recalculation())
        run_id = recalculation["id"]
        return await self.add(
            "calculations",
            self.estimate(
                **{
                    "calculation_run_id": run_id,
                    "recalculation_id": run_id,
                    "calculation_type": "adjustment_recalculation",
                    "status": "active",
                    **columns,
                }
            ),
        )

    async def add_recalculated_twice(self, amount: int) -> tuple[Row, Row]:
        """Add the calculations of two recalculations: up by an amount, and down again."""
        nothing = {"total_raw_usage_amount": 0, "net_billed_amount": 0}
        down = await self.add_recalculated(**nothing)
        up = await self.add_recalculated(
            total_raw_usage_amount=amount,
            net_billed_amount=amount,
            status="superseded",
            superseded_by_calculation_id=down["id"],
        )
        return up, down

    def write_off(self, **columns: object) -> Row:
        """A write-off of which nothing is recovered."""
        return (
            self._own(self.book)
            | {
                "amount": PART,
                "recovered_amount": 0,
                "currency": "USD",
                "reason": "By hand",
                "ledger_transaction_id": self.book.ledger_transaction_id,
                "created_at": START,
                "updated_at": START,
            }
            | columns
        )

    @staticmethod
    def _own(book: LedgerBook) -> Row:
        return book.scope_columns | {
            "id": uuid.uuid4(),
            "subscription_id": book.subscription_id,
            "billing_period_id": book.open_period_id,
        }
