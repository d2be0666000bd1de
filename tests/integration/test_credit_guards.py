"""Credits, payments and refunds do not change behind the ledger's back, whoever writes."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from asyncpg import (
    CheckViolationError,
    ForeignKeyViolationError,
    InsufficientPrivilegeError,
    RestrictViolationError,
    UniqueViolationError,
)

from billing.store.tables import metadata
from tests.factories.clock import START
from tests.factories.credit_rows import PROMO, CreditRows
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    Row,
    assert_violates,
    attempt,
    insert,
)

LIVING: dict[str, set[str]] = {
    "usage_credits": {"notes", "metadata", "updated_at"},
    "usage_credit_balances": {
        "status",
        "remaining_amount",
        "held_amount",
        "voided_at",
        "expired_at",
        "updated_at",
    },
    "usage_credit_applications": set(),
    "usage_credit_balance_adjustments": set(),
    "payments": {
        "status",
        "processor_transaction_id",
        "processed_at",
        "failure_reason",
        "usage_credit_id",
        "payment_method_details",
        "invoice_id",
        "updated_at",
    },
    "refunds": {
        "status",
        "refund_processed_at",
        "gateway_refund_id",
        "failure_reason",
        "clawed_back_amount",
        "updated_at",
    },
}
"""What of a row may change; the rest is history."""

OTHER_VALUES = {
    str: "'XXX'",
    UUID: "gen_random_uuid()",
    int: "coalesce({column}, 0) + 3",
    bool: "NOT {column}",
    object: """'{{"by": "hand"}}'""",
    datetime: "now()",
}
KEYS = {"usage_credit_balances": "usage_credit_id"}
FAILED: Row = {"status": "failed", "failure_reason": "no money"}


def other_value(column: sa.Column[Any]) -> str:
    """SQL of a value of the column's type that the row does not have."""
    return OTHER_VALUES[column.type.python_type].format(column=column.name)


def core_columns(table: str) -> Iterable[sa.Column[Any]]:
    """What of a row never changes."""
    return [column for column in metadata.tables[table].columns if column.name not in LIVING[table]]


def changing(table: str, change: str) -> str:
    """A statement that changes one row."""
    return f"UPDATE {table} SET {change} WHERE {KEYS.get(table, 'id')} = $1"


async def a_row(rows: CreditRows, table: str) -> UUID:
    """Add a row that may still change, if any of the table may, and return its key."""
    payment = await rows.add_payment()
    credit = rows.credit(id=payment["usage_credit_id"])
    match table:
        case "payments":
            added = await rows.add(table, rows.payment())
        case "refunds":
            added = await rows.add(table, rows.refund(payment))
        case "usage_credit_applications":
            added = await rows.add(table, rows.application(credit))
        case "usage_credit_balance_adjustments":
            added = await rows.add(table, rows.adjustment(credit))
        case _:
            added = credit
    return UUID(str(added["id"]))


@pytest.fixture
def rows(app: Connection, book: LedgerBook) -> CreditRows:
    """The service's rows."""
    return CreditRows(app, book)


@pytest.fixture
def owners(owner: Connection, book: LedgerBook) -> CreditRows:
    """Rows of a superuser, to whom no grants apply."""
    return CreditRows(owner, book)


class TestHistory:
    @pytest.mark.parametrize("table", LIVING)
    async def test_the_core_never_changes(self, owners: CreditRows, table: str) -> None:
        key = await a_row(owners, table)
        for column in core_columns(table):
            with pytest.raises(RestrictViolationError, match=r"may change|never change"):
                await attempt(
                    owners.connection,
                    changing(table, f"{column.name} = {other_value(column)}"),
                    key,
                )

    @pytest.mark.parametrize("table", LIVING)
    async def test_the_application_may_change_what_lives_and_no_more(
        self, rows: CreditRows, table: str
    ) -> None:
        key = await a_row(rows, table)
        for column in metadata.tables[table].columns:
            statement = changing(table, f"{column.name} = {column.name}")
            if column.name in LIVING[table]:
                assert await attempt(rows.connection, statement, key) == "UPDATE 1"
            else:
                with pytest.raises(InsufficientPrivilegeError):
                    await attempt(rows.connection, statement, key)

    @pytest.mark.parametrize("table", LIVING)
    async def test_nothing_is_deleted(
        self, rows: CreditRows, owners: CreditRows, table: str
    ) -> None:
        statement = f"DELETE FROM {table} WHERE {KEYS.get(table, 'id')} = $1"
        with pytest.raises(InsufficientPrivilegeError):
            await attempt(rows.connection, statement, await a_row(rows, table))
        with pytest.raises(RestrictViolationError, match=f"DELETE on {table} is refused"):
            await attempt(owners.connection, statement, await a_row(owners, table))

    @pytest.mark.parametrize("table", ["payments", "refunds"])
    @pytest.mark.parametrize("status", ["succeeded", "failed"])
    async def test_an_end_is_final(self, owners: CreditRows, table: str, status: str) -> None:
        payment = await owners.add_payment()
        ended = await self.ended(owners, table, status, payment)
        for change in [
            *(f"{column} = {column}" for column in LIVING[table]),
            "status = 'pending'",
            "status = 'pending', failure_reason = NULL",
            "status = 'failed', failure_reason = 'after all'",
        ]:
            with pytest.raises(RestrictViolationError, match=f"is {status} and never changes"):
                await attempt(owners.connection, changing(table, change), ended["id"])

    @staticmethod
    async def ended(rows: CreditRows, table: str, status: str, payment: Row) -> Row:
        """A payment or refund that has come to its end."""
        if table == "payments":
            if status == "succeeded":
                return payment
            return await rows.add(table, rows.payment(**FAILED))
        confirmed = {
            "status": "succeeded",
            "gateway_refund_id": "re_1",
            "refund_processed_at": START,
        }
        return await rows.add(
            table, rows.refund(payment, **(confirmed if status == "succeeded" else FAILED))
        )


class TestCredits:
    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"credit_type": "gift"}, "ck_usage_credits_credit_type"),
            ({"issued_amount": 0}, "ck_usage_credits_issued_amount"),
            ({"issued_amount": -1}, "ck_usage_credits_issued_amount"),
            ({"expires_at": START}, "ck_usage_credits_expires_at"),
            ({"initial_status": "granted_pending"}, "ck_usage_credits_initial_status"),
        ],
        ids=str,
    )
    async def test_a_grant_that_makes_no_sense(
        self, rows: CreditRows, changes: Row, constraint: str
    ) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await insert(rows.connection, "usage_credits", rows.credit() | changes)
        assert_violates(refusal, constraint)

    async def test_a_credit_has_its_account(self, rows: CreditRows) -> None:
        with pytest.raises(ForeignKeyViolationError) as refusal:
            await insert(rows.connection, "usage_credits", rows.credit())
        assert_violates(refusal, "fk_usage_credits_ledger_accounts")

    async def test_a_credit_is_of_a_period_of_its_subscription(
        self, rows: CreditRows, book: LedgerBook
    ) -> None:
        with pytest.raises(ForeignKeyViolationError) as refusal:
            await rows.add_credit(billing_period_id=book.other_period_id)
        assert_violates(refusal, "fk_usage_credits_billing_periods")

    @pytest.mark.parametrize(
        ("change", "constraint"),
        [
            ("remaining_amount = remaining_amount - 101", "remaining_amount"),
            ("held_amount = held_amount - 1", "held_amount"),
            ("status = 'gone'", "status"),
            ("status = 'voided'", "voided_at"),
            ("voided_at = now()", "voided_at"),
            ("status = 'expired'", "expired_at"),
            ("expired_at = now()", "expired_at"),
        ],
    )
    async def test_a_balance_that_cannot_be(
        self, rows: CreditRows, change: str, constraint: str
    ) -> None:
        credit = await rows.add_credit()
        with pytest.raises(CheckViolationError) as refusal:
            await attempt(rows.connection, changing("usage_credit_balances", change), credit["id"])
        assert_violates(refusal, f"ck_usage_credit_balances_{constraint}")

    @pytest.mark.parametrize(
        ("end", "status"), [("voided_at", "voided"), ("expired_at", "expired")]
    )
    async def test_the_end_of_a_credit_is_final(
        self, rows: CreditRows, end: str, status: str
    ) -> None:
        credit_id = await a_row(rows, "usage_credit_balances")
        table = "usage_credit_balances"
        ended = changing(table, f"status = '{status}', {end} = now()")
        await rows.connection.execute(ended, credit_id)
        await rows.connection.execute(changing(table, f"{end} = {end}"), credit_id)
        for change in (f"status = 'available', {end} = NULL", f"{end} = now() + interval '1 day'"):
            with pytest.raises(RestrictViolationError, match="has come to its end, for good"):
                await attempt(rows.connection, changing(table, change), credit_id)

    async def test_all_of_a_credit_can_be_spent(self, rows: CreditRows) -> None:
        credit = await rows.add_credit()
        change = "remaining_amount = 0, status = 'fully_used'"
        done = await attempt(
            rows.connection, changing("usage_credit_balances", change), credit["id"]
        )
        assert done == "UPDATE 1"

    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"kind": "gift"}, "kind"),
            ({"amount_applied": 0}, "amount_applied"),
            ({"component_id": "7d444840-9dc0-41d1-b245-5ffdce74fad2"}, "component_id"),
            ({"usage_from": START, "usage_until": START}, "usage_span"),
        ],
        ids=str,
    )
    async def test_a_use_that_makes_no_sense(
        self, rows: CreditRows, changes: Row, constraint: str
    ) -> None:
        application = rows.application(await rows.add_credit()) | changes
        with pytest.raises(CheckViolationError) as refusal:
            await insert(rows.connection, "usage_credit_applications", application)
        assert_violates(refusal, f"ck_usage_credit_applications_{constraint}")

    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"adjustment_type": "whim"}, "adjustment_type"),
            ({"adjustment_type": "clawback_refund"}, "source_refund_id"),
            ({"direction": "sideways"}, "direction"),
            ({"amount_adjusted": 0, "deficit_amount": 0}, "amount_adjusted"),
            ({"deficit_amount": -1}, "deficit_amount"),
            ({"deficit_amount": 8}, "deficit_amount"),
            ({"direction": "increase", "deficit_amount": 1}, "increase"),
        ],
        ids=str,
    )
    async def test_an_adjustment_that_makes_no_sense(
        self, rows: CreditRows, changes: Row, constraint: str
    ) -> None:
        adjustment = rows.adjustment(await rows.add_credit()) | changes
        with pytest.raises(CheckViolationError) as refusal:
            await insert(rows.connection, "usage_credit_balance_adjustments", adjustment)
        assert_violates(refusal, f"ck_usage_credit_balance_adjustments_{constraint}")

    async def test_a_refund_adjusts_one_credit_once(self, rows: CreditRows) -> None:
        payment = await rows.add_payment()
        refund = await rows.add("refunds", rows.refund(payment))
        credit = rows.credit(PROMO, id=payment["usage_credit_id"])
        table = "usage_credit_balance_adjustments"
        await insert(rows.connection, table, rows.adjustment(credit, refund))
        with pytest.raises(UniqueViolationError) as refusal:
            await insert(rows.connection, table, rows.adjustment(credit, refund))
        assert_violates(refusal, "uq_usage_credit_balance_adjustments_refund")


class TestPayments:
    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"purpose": "gift"}, "purpose"),
            ({"status": "lost"}, "status"),
            ({"amount": 0}, "amount"),
            ({"purpose": "period_settlement"}, "billing_period_id"),
            ({"status": "succeeded"}, "facts"),
            ({"processor_transaction_id": "ch_1"}, "facts"),
            ({"processed_at": START}, "facts"),
            ({"status": "failed"}, "facts"),
            ({"failure_reason": "no money"}, "facts"),
        ],
        ids=str,
    )
    async def test_a_payment_that_makes_no_sense(
        self, rows: CreditRows, changes: Row, constraint: str
    ) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await insert(rows.connection, "payments", rows.payment() | changes)
        assert_violates(refusal, f"ck_payments_{constraint}")

    async def test_a_payment_settles_a_period_of_its_subscription(
        self, rows: CreditRows, book: LedgerBook
    ) -> None:
        settlement = {"purpose": "period_settlement", "billing_period_id": book.other_period_id}
        with pytest.raises(ForeignKeyViolationError) as refusal:
            await insert(rows.connection, "payments", rows.payment(**settlement))
        assert_violates(refusal, "fk_payments_billing_periods")

    @pytest.mark.parametrize(
        ("column", "constraint"),
        [
            ("processor_transaction_id", "uq_payments_processor_transaction"),
            ("usage_credit_id", "uq_payments_usage_credit"),
        ],
    )
    async def test_the_same_money_is_taken_once(
        self, rows: CreditRows, column: str, constraint: str
    ) -> None:
        first = await rows.add_payment()
        with pytest.raises(UniqueViolationError) as refusal:
            await rows.add_payment(**{column: first[column]})
        assert_violates(refusal, constraint)

    async def test_a_payment_becomes_a_credit_of_its_subscription(
        self, rows: CreditRows, book: LedgerBook
    ) -> None:
        theirs = await rows.add_credit(subscription_id=book.other_subscription_id)
        with pytest.raises(ForeignKeyViolationError) as refusal:
            await rows.add_payment(usage_credit_id=theirs["id"])
        assert_violates(refusal, "fk_payments_usage_credits")

    async def test_a_pending_payment_ends_once(self, rows: CreditRows) -> None:
        payment = await rows.add("payments", rows.payment())
        fail = changing("payments", "status = 'failed', failure_reason = 'no money'")
        assert await attempt(rows.connection, fail, payment["id"]) == "UPDATE 1"
        with pytest.raises(RestrictViolationError, match="is failed and never changes"):
            await attempt(rows.connection, fail, payment["id"])
