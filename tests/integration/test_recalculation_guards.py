"""Corrections, calculations, recalculations and write-offs do not change behind anybody's back."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

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
from tests.factories.correction_rows import CorrectionRows
from tests.factories.ledger_book import Connection, LedgerBook, Row, assert_violates, attempt

SOMETHING = UUID("7d444840-9dc0-41d1-b245-5ffdce74fad2")
DELIVERED: Row = {"document_id": "inv_1", "delivered_at": START}
LIVING: dict[str, set[str]] = {
    "usage_event_corrections": set(),
    "recalculations": set(),
    "recalculation_documents": {"document_id", "delivered_at", "failure"},
    "write_offs": {"recovered_amount", "updated_at"},
    "calculations": {
        "status",
        "superseded_by_calculation_id",
        "source_invoice_id",
        "source_credit_note_id",
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
    Decimal: "coalesce({column}, 0) + 0.5",
}


def core_columns(table: str) -> Iterable[sa.Column[Any]]:
    """What of a row never changes."""
    return [column for column in metadata.tables[table].columns if column.name not in LIVING[table]]


def other_value(column: sa.Column[Any]) -> str:
    """SQL of a value of the column's type that the row does not have."""
    return OTHER_VALUES[column.type.python_type].format(column=column.name)


async def a_row(rows: CorrectionRows, table: str) -> UUID:
    """Add a row that may still change, if any of the table may, and return its id."""
    match table:
        case "usage_event_corrections":
            added = await rows.add_correction()
        case "recalculations":
            added = await rows.add(table, rows.recalculation())
        case "recalculation_documents":
            added = await rows.add_document()
        case "write_offs":
            added = await rows.add(table, rows.write_off())
        case _:
            added = await rows.add_recalculated()
    return UUID(str(added["id"]))


@pytest.fixture
def rows(app: Connection, book: LedgerBook) -> CorrectionRows:
    """The service's rows."""
    return CorrectionRows(app, book)


@pytest.fixture
def owners(owner: Connection, book: LedgerBook) -> CorrectionRows:
    """Rows of a superuser, to whom no grants apply."""
    return CorrectionRows(owner, book)


class TestHistory:
    @pytest.mark.parametrize("table", LIVING)
    async def test_the_core_never_changes(self, owners: CorrectionRows, table: str) -> None:
        key = await a_row(owners, table)
        for column in core_columns(table):
            change = f"UPDATE {table} SET {column.name} = {other_value(column)} WHERE id = $1"
            with pytest.raises(RestrictViolationError, match=r"may change|never change|refused"):
                await attempt(owners.connection, change, key)

    @pytest.mark.parametrize("table", [table for table in LIVING if table != "calculations"])
    async def test_the_application_may_change_what_lives_and_no_more(
        self, rows: CorrectionRows, table: str
    ) -> None:
        key = await a_row(rows, table)
        for column in metadata.tables[table].columns:
            statement = f"UPDATE {table} SET {column.name} = {column.name} WHERE id = $1"
            if column.name in LIVING[table]:
                assert await attempt(rows.connection, statement, key) == "UPDATE 1"
            else:
                with pytest.raises(InsufficientPrivilegeError):
                    await attempt(rows.connection, statement, key)

    @pytest.mark.parametrize("table", LIVING)
    async def test_nothing_is_deleted(self, owners: CorrectionRows, table: str) -> None:
        statement, key = f"DELETE FROM {table} WHERE id = $1", await a_row(owners, table)
        with pytest.raises(RestrictViolationError, match=f"DELETE on {table} is refused"):
            await attempt(owners.connection, statement, key)
        await owners.connection.execute("SET LOCAL ROLE billing_app")
        with pytest.raises(InsufficientPrivilegeError):
            await attempt(owners.connection, statement, key)

    @pytest.mark.parametrize("table", LIVING)
    async def test_nothing_is_truncated(self, owner: Connection, table: str) -> None:
        with pytest.raises(RestrictViolationError, match=r"TRUNCATE on \w+ is refused"):
            await attempt(owner, f"TRUNCATE {table} CASCADE")


class TestCalculations:
    SUPERSEDE = (
        "UPDATE calculations SET status = 'superseded', superseded_by_calculation_id = $2"
        " WHERE id = $1"
    )
    MOVE = "UPDATE calculations SET status = $2 WHERE id = $1"

    async def test_an_active_one_is_superseded_once(self, rows: CorrectionRows) -> None:
        calculation_id = (await rows.add_recalculated())["id"]

        await attempt(rows.connection, self.SUPERSEDE, calculation_id, uuid4())

        with pytest.raises(RestrictViolationError, match="is superseded and cannot become"):
            await attempt(rows.connection, self.SUPERSEDE, calculation_id, uuid4())
        await rows.add_recalculated()

    @pytest.mark.parametrize("status", ["active", "discarded", "pending_confirmation"])
    async def test_an_active_one_becomes_nothing_else(
        self, rows: CorrectionRows, status: str
    ) -> None:
        calculation_id = (await rows.add_recalculated())["id"]
        with pytest.raises(RestrictViolationError, match="is active and cannot become"):
            await attempt(rows.connection, self.MOVE, calculation_id, status)

    async def test_an_estimate_is_superseded_or_discarded(self, rows: CorrectionRows) -> None:
        first, second = [await rows.add("calculations", rows.estimate()) for _ in range(2)]

        await attempt(rows.connection, self.SUPERSEDE, first["id"], second["id"])
        await attempt(rows.connection, self.MOVE, second["id"], "discarded")

        for estimate, status in ((first, "superseded"), (second, "discarded")):
            for other in ("active", "pending_confirmation", "discarded"):
                with pytest.raises(RestrictViolationError, match=f"is {status} and cannot become"):
                    await attempt(rows.connection, self.MOVE, estimate["id"], other)

    async def test_an_estimate_never_counts(self, rows: CorrectionRows) -> None:
        estimate = await rows.add("calculations", rows.estimate())
        with pytest.raises(RestrictViolationError, match="cannot become active"):
            await attempt(rows.connection, self.MOVE, estimate["id"], "active")

    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"billing_run_id": SOMETHING}, "origin"),
            ({"calculation_type": "billing_run", "status": "active"}, "origin"),
            ({"calculation_type": "adjustment_recalculation", "status": "active"}, "origin"),
            ({"recalculation_id": SOMETHING}, "origin"),
            ({"status": "superseded"}, "superseded"),
            ({"superseded_by_calculation_id": SOMETHING}, "superseded"),
            ({"net_billed_amount": 1}, "net"),
            ({"calculation_type": "guess"}, "calculation_type"),
            ({"status": "guessed"}, "status"),
        ],
        ids=str,
    )
    async def test_an_estimate_that_makes_no_sense(
        self, rows: CorrectionRows, changes: Row, constraint: str
    ) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await rows.add("calculations", rows.estimate(**changes))
        assert_violates(refusal, f"ck_calculations_{constraint}")

    @pytest.mark.parametrize("status", ["pending_confirmation", "discarded"])
    async def test_only_estimates_are_unconfirmed(self, rows: CorrectionRows, status: str) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await rows.add_recalculated(status=status)
        assert_violates(refusal, "ck_calculations_estimate")

    async def test_a_recalculations_calculation_has_its_run(self, rows: CorrectionRows) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await rows.add_recalculated(calculation_run_id=uuid4())
        assert_violates(refusal, "ck_calculations_origin")

    async def test_one_of_a_component_is_active(self, rows: CorrectionRows) -> None:
        await rows.add_recalculated()
        with pytest.raises(UniqueViolationError) as refusal:
            await rows.add_recalculated()
        assert_violates(refusal, "uq_calculations_active")


class TestCorrections:
    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"correction_type": "guess"}, "correction_type"),
            ({"quantity_before": -1}, "quantities"),
            ({"quantity_after": -1}, "quantities"),
            ({"correction_type": "void"}, "void"),
        ],
        ids=str,
    )
    async def test_a_correction_that_makes_no_sense(
        self, rows: CorrectionRows, changes: Row, constraint: str
    ) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await rows.add_correction(**changes)
        assert_violates(refusal, f"ck_usage_event_corrections_{constraint}")

    async def test_an_event_is_voided_once(self, rows: CorrectionRows) -> None:
        void = {"correction_type": "void", "quantity_after": 0}
        first = await rows.add_correction(**void)
        again = rows.correction(first["usage_event_id"], **void)
        with pytest.raises(UniqueViolationError) as refusal:
            await rows.add("usage_event_corrections", again)
        assert_violates(refusal, "uq_usage_event_corrections_void")
        await rows.add_correction(**void)

    async def test_what_a_correction_names_exists(self, rows: CorrectionRows) -> None:
        with pytest.raises(ForeignKeyViolationError):
            await rows.add("usage_event_corrections", rows.correction(uuid4()))
        with pytest.raises(ForeignKeyViolationError):
            await rows.add_correction(billing_period_id=rows.book.other_period_id)


class TestRecalculations:
    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"net_change_amount": 1}, "net_change"),
            ({"recovered_amount": -1}, "restored"),
            ({"released_amount": -1}, "restored"),
            ({"surplus_amount": -1}, "restored"),
        ],
        ids=str,
    )
    async def test_a_recalculation_that_makes_no_sense(
        self, rows: CorrectionRows, changes: Row, constraint: str
    ) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await rows.add("recalculations", rows.recalculation(**changes))
        assert_violates(refusal, f"ck_recalculations_{constraint}")

    async def test_what_a_recalculation_names_exists(self, rows: CorrectionRows) -> None:
        for column in ("billing_period_id", "ledger_transaction_id"):
            with pytest.raises(ForeignKeyViolationError):
                await rows.add("recalculations", rows.recalculation(**{column: uuid4()}))

    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"kind": "guess", "amount": -7, "invoice_id": "inv_1"}, "kind"),
            ({"amount": -7}, "amount"),
            ({"kind": "credit_note", "invoice_id": "inv_1"}, "amount"),
            ({"kind": "void", "amount": -7}, "invoice_id"),
            ({"invoice_id": "inv_1"}, "invoice_id"),
            ({"document_id": "inv_1"}, "delivered"),
            ({"delivered_at": START}, "delivered"),
        ],
        ids=str,
    )
    async def test_a_document_that_makes_no_sense(
        self, rows: CorrectionRows, changes: Row, constraint: str
    ) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await rows.add_document(**changes)
        assert_violates(refusal, f"ck_recalculation_documents_{constraint}")

    async def test_a_delivery_is_final(self, owners: CorrectionRows) -> None:
        document = await owners.add_document(failure="unavailable")
        deliver = (
            "UPDATE recalculation_documents"
            " SET document_id = 'inv_1', delivered_at = now(), failure = NULL WHERE id = $1"
        )
        assert await attempt(owners.connection, deliver, document["id"]) == "UPDATE 1"
        for column in LIVING["recalculation_documents"]:
            change = f"UPDATE recalculation_documents SET {column} = {column} WHERE id = $1"
            with pytest.raises(RestrictViolationError, match="is delivered and never changes"):
                await attempt(owners.connection, change, document["id"])

    async def test_documents_of_a_recalculation_have_an_order(self, rows: CorrectionRows) -> None:
        document = await rows.add_document(**DELIVERED)
        again = rows.document(document["recalculation_id"])
        with pytest.raises(UniqueViolationError):
            await rows.add("recalculation_documents", again)
        await rows.add("recalculation_documents", again | {"position": 1})


class TestWriteOffs:
    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"amount": 0}, "amount"),
            ({"amount": -7}, "amount"),
            ({"recovered_amount": 8}, "recovered_amount"),
            ({"recovered_amount": -1}, "recovered_amount"),
        ],
        ids=str,
    )
    async def test_a_write_off_that_makes_no_sense(
        self, rows: CorrectionRows, changes: Row, constraint: str
    ) -> None:
        with pytest.raises(CheckViolationError) as refusal:
            await rows.add("write_offs", rows.write_off(**changes))
        assert_violates(refusal, f"ck_write_offs_{constraint}")

    async def test_no_more_is_recovered_than_was_written_off(self, rows: CorrectionRows) -> None:
        write_off = await rows.add("write_offs", rows.write_off())
        recover = "UPDATE write_offs SET recovered_amount = recovered_amount + $2 WHERE id = $1"
        assert await attempt(rows.connection, recover, write_off["id"], 7) == "UPDATE 1"
        with pytest.raises(CheckViolationError):
            await attempt(rows.connection, recover, write_off["id"], 1)

    async def test_what_was_recovered_stays_recovered(self, owners: CorrectionRows) -> None:
        write_off = await owners.add("write_offs", owners.write_off(recovered_amount=3))
        recover = "UPDATE write_offs SET recovered_amount = $2 WHERE id = $1"
        with pytest.raises(RestrictViolationError, match="stays recovered"):
            await attempt(owners.connection, recover, write_off["id"], 2)
        assert await attempt(owners.connection, recover, write_off["id"], 4) == "UPDATE 1"
