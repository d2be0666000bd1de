"""Rows of credits, payments and refunds to add to a book by hand."""

import uuid
from dataclasses import dataclass
from uuid import UUID

from tests.factories.clock import START
from tests.factories.ledger_book import Connection, LedgerBook, Row, insert

PROMO, TOP_UP, SURPLUS = "granted_promo", "payment_top_up", "surplus"
PART = 7
DIRECTIONS = {1: "increase", -1: "decrease"}


@dataclass(frozen=True)
class CreditRows:
    """Adds rows to a book in a transaction, each valid unless the columns say otherwise."""

    connection: Connection
    book: LedgerBook

    async def account(
        self, kind: str, *, account_id: UUID | None = None, subscription_id: UUID | None = None
    ) -> UUID:
        """Add an account in dollars, and return its id."""
        row = self.book.scope_columns | {
            "id": account_id or uuid.uuid4(),
            "kind": kind,
            "currency": "USD",
            "subscription_id": subscription_id,
            "created_at": START,
        }
        await insert(self.connection, "ledger_accounts", row)
        return UUID(str(row["id"]))

    def credit(self, credit_type: str = PROMO, **columns: object) -> Row:
        """A new credit over 100."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "subscription_id": self.book.subscription_id,
                "credit_type": credit_type,
                "issued_amount": 100,
                "currency": "USD",
                "priority": 0,
                "covers_charges": False,
                "effective_at": START,
                "issued_at": START,
                "initial_status": "granted_active",
                "updated_at": START,
            }
            | columns
        )

    async def add_credit(self, credit_type: str = PROMO, **columns: object) -> Row:
        """Add a credit with its account and its balance."""
        row = self.credit(credit_type, **columns)
        await self.account("credit", account_id=row["id"], subscription_id=row["subscription_id"])
        await insert(self.connection, "usage_credits", row)
        await insert(self.connection, "usage_credit_balances", self.balance(row))
        return row

    def balance(self, credit: Row, **columns: object) -> Row:
        """The balance of an untouched credit."""
        return (
            self.book.scope_columns
            | {
                "usage_credit_id": credit["id"],
                "subscription_id": credit["subscription_id"],
                "status": "available",
                "remaining_amount": credit["issued_amount"],
                "held_amount": 0,
                "updated_at": START,
            }
            | columns
        )

    def application(self, credit: Row, *, to_usage: bool = False, **columns: object) -> Row:
        """A use of a credit in the open period, on a charge unless told."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "subscription_id": credit["subscription_id"],
                "usage_credit_id": credit["id"],
                "kind": "run",
                "calculation_run_id": uuid.uuid4(),
                "billing_period_id": self.book.open_period_id,
                "component_id": self.book.component_id if to_usage else None,
                "usage_meter_id": self.book.usage_meter_id if to_usage else None,
                "amount_applied": PART,
                "currency": "USD",
                "applied_at": START,
                "ledger_transaction_id": self.book.ledger_transaction_id,
            }
            | columns
        )

    def adjustment(
        self, credit: Row, refund: Row | None = None, *, sign: int = -1, **columns: object
    ) -> Row:
        """A decrease of a credit unless told: due to a refund, or an administrator's."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "subscription_id": credit["subscription_id"],
                "usage_credit_id": credit["id"],
                "adjustment_type": "clawback_refund" if refund else "admin_reduction",
                "direction": DIRECTIONS[sign],
                "amount_adjusted": PART,
                "deficit_amount": 0,
                "currency": "USD",
                "reason": "By hand",
                "source_refund_id": refund["id"] if refund else None,
                "adjustment_initiated_at": START,
                "ledger_transaction_id": self.book.ledger_transaction_id,
            }
            | columns
        )

    def payment(self, **columns: object) -> Row:
        """A pending top-up of 100."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "subscription_id": self.book.subscription_id,
                "purpose": "top_up",
                "amount": 100,
                "currency": "USD",
                "status": "pending",
                "created_at": START,
                "updated_at": START,
            }
            | columns
        )

    async def add_payment(self, **columns: object) -> Row:
        """Add a confirmed payment with its credit."""
        subscription_id = columns.get("subscription_id", self.book.subscription_id)
        credit = await self.add_credit(TOP_UP, subscription_id=subscription_id)
        row = self.payment(
            **{
                "status": "succeeded",
                "usage_credit_id": credit["id"],
                "processor_transaction_id": uuid.uuid4().hex,
                "processed_at": START,
                **columns,
            }
        )
        await insert(self.connection, "payments", row)
        return row

    def refund(self, payment: Row, **columns: object) -> Row:
        """A pending refund of 60."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "payment_id": payment["id"],
                "subscription_id": payment["subscription_id"],
                "amount": 60,
                "currency": "USD",
                "status": "pending",
                "credit_policy": "revert_unused",
                "clawed_back_amount": 0,
                "reversed_amount": 0,
                "deficit_amount": 0,
                "ledger_transaction_id": self.book.ledger_transaction_id,
                "created_at": START,
                "updated_at": START,
            }
            | columns
        )

    async def add_refund(self, **columns: object) -> Row:
        """Add a pending refund of a new payment."""
        payment = await self.add_payment(**columns)
        return await self.add("refunds", self.refund(payment))

    async def add_application(
        self, credit: Row, *, to_usage: bool = False, **columns: object
    ) -> Row:
        """Add a use of a credit."""
        row = self.application(credit, to_usage=to_usage, **columns)
        return await self.add("usage_credit_applications", row)

    async def add_adjustment(
        self, credit: Row, refund: Row | None = None, *, sign: int = -1
    ) -> Row:
        """Add an adjustment of a credit."""
        row = self.adjustment(credit, refund, sign=sign)
        return await self.add("usage_credit_balance_adjustments", row)

    async def add(self, table: str, row: Row) -> Row:
        """Add a row to a table, and return it."""
        await insert(self.connection, table, row)
        return row
