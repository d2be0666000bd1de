"""History does not change, whoever writes: the database refuses it to the application and owner."""

from datetime import datetime
from uuid import UUID

import pytest
from asyncpg import CheckViolationError, InsufficientPrivilegeError, RestrictViolationError

from billing.store.tables import ledger_entries, metadata
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    Row,
    add_event,
    assert_violates,
    attempt,
    insert,
)

FACTS = [
    "idempotent_requests",
    "usage_meters",
    "plans",
    "plan_versions",
    "components",
    "ledger_accounts",
    "ledger_transactions",
    "usage_events",
    "charges",
    "invoice_requests",
    "usage_credit_applications",
    "usage_credit_balance_adjustments",
]
POST = "UPDATE ledger_entries SET status = 'posted', posted_at = now() WHERE id = $1"
DISCARD = "UPDATE ledger_entries SET discarded_at = now() WHERE id = $1"
OTHER_VALUES = {
    str: "'EUR'",
    UUID: "gen_random_uuid()",
    int: "-3",
    bool: "NOT livemode",
    object: """'{"by": "hand"}'""",
    datetime: "now()",
}
CHANGING_COLUMNS = {"status", "posted_at", "discarded_at"}


async def add_pending(connection: Connection, book: LedgerBook) -> Row:
    entry = book.usage_cost(await add_event(connection, book))
    await insert(connection, "ledger_entries", entry)
    return entry


class TestPostedEntries:
    @pytest.mark.parametrize(
        "change",
        [
            "posted_at = now()",
            "posted_at = NULL, status = 'pending'",
            "posted_at = NULL, status = 'pending', discarded_at = now()",
            "status = status",
        ],
    )
    async def test_they_never_change(
        self, app: Connection, owner: Connection, book: LedgerBook, change: str
    ) -> None:
        for connection in (app, owner):
            with pytest.raises(RestrictViolationError, match="is posted and never changes"):
                await attempt(
                    connection,
                    f"UPDATE ledger_entries SET {change} WHERE subscription_id = $1",
                    book.subscription_id,
                )

    async def test_the_application_may_not_even_try_other_columns(self, app: Connection) -> None:
        for column in {c.name for c in ledger_entries.columns} - CHANGING_COLUMNS:
            with pytest.raises(InsufficientPrivilegeError):
                await attempt(app, f"UPDATE ledger_entries SET {column} = {column}")

    async def test_they_are_never_deleted(
        self, app: Connection, owner: Connection, book: LedgerBook
    ) -> None:
        statement = "DELETE FROM ledger_entries WHERE subscription_id = $1"
        with pytest.raises(InsufficientPrivilegeError):
            await attempt(app, statement, book.subscription_id)
        with pytest.raises(RestrictViolationError, match="DELETE on ledger_entries is refused"):
            await attempt(owner, statement, book.subscription_id)


class TestPendingEntries:
    async def test_one_is_posted_once(self, app: Connection, book: LedgerBook) -> None:
        entry = await add_pending(app, book)

        assert await attempt(app, POST, entry["id"]) == "UPDATE 1"

        for again in (POST, DISCARD):
            with pytest.raises(RestrictViolationError, match="is posted and never changes"):
                await attempt(app, again, entry["id"])

    async def test_one_is_discarded_once_and_never_posted(
        self, app: Connection, book: LedgerBook
    ) -> None:
        entry = await add_pending(app, book)

        assert await attempt(app, DISCARD, entry["id"]) == "UPDATE 1"

        revived = "UPDATE ledger_entries SET discarded_at = NULL WHERE id = $1"
        for again in (POST, DISCARD, revived):
            with pytest.raises(RestrictViolationError, match="is discarded and never changes"):
                await attempt(app, again, entry["id"])

    async def test_nothing_else_of_one_changes(self, owner: Connection, book: LedgerBook) -> None:
        entry = await add_pending(owner, book)
        columns = [c for c in ledger_entries.columns if c.name not in CHANGING_COLUMNS]

        for column in columns:
            with pytest.raises(RestrictViolationError, match="only the status may change"):
                await attempt(
                    owner,
                    "UPDATE ledger_entries SET status = 'posted', posted_at = now(),"
                    f" {column.name} = {OTHER_VALUES[column.type.python_type]} WHERE id = $1",
                    entry["id"],
                )

    @pytest.mark.parametrize(
        "change",
        [
            "status = 'posted'",
            "posted_at = now()",
            "status = 'posted', posted_at = now(), discarded_at = now()",
        ],
    )
    async def test_status_and_times_agree(
        self, app: Connection, book: LedgerBook, change: str
    ) -> None:
        entry = await add_pending(app, book)

        with pytest.raises(CheckViolationError) as refusal:
            await attempt(app, f"UPDATE ledger_entries SET {change} WHERE id = $1", entry["id"])
        assert_violates(refusal, "ck_ledger_entries_lifecycle")

    async def test_one_is_not_deleted_either(self, owner: Connection, book: LedgerBook) -> None:
        entry = await add_pending(owner, book)

        with pytest.raises(RestrictViolationError):
            await attempt(owner, "DELETE FROM ledger_entries WHERE id = $1", entry["id"])


class TestFacts:
    @pytest.mark.parametrize("table", FACTS)
    async def test_facts_never_change(
        self, app: Connection, owner: Connection, book: LedgerBook, table: str
    ) -> None:
        of_tenant = "WHERE tenant_id = $1"
        assert await app.fetchval(f"SELECT count(*) FROM {table}") > 0
        for statement in (
            f"UPDATE {table} SET tenant_id = tenant_id {of_tenant}",
            f"DELETE FROM {table} {of_tenant}",
        ):
            with pytest.raises((InsufficientPrivilegeError, RestrictViolationError)):
                await attempt(app, statement, book.scope.tenant_id)
            with pytest.raises(RestrictViolationError, match=f"on {table} is refused"):
                await attempt(owner, statement, book.scope.tenant_id)

    @pytest.mark.parametrize("table", sorted(metadata.tables))
    async def test_no_table_is_truncated(
        self, app: Connection, owner: Connection, table: str
    ) -> None:
        with pytest.raises(InsufficientPrivilegeError):
            await attempt(app, f"TRUNCATE {table} CASCADE")
        with pytest.raises(RestrictViolationError, match=r"TRUNCATE on .* is refused"):
            await attempt(owner, f"TRUNCATE {table} CASCADE")
