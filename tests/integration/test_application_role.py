"""What the service's role may do: add rows of one scope, change what has a life, and no more."""

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from asyncpg import (
    ForeignKeyViolationError,
    InsufficientPrivilegeError,
    IntegrityConstraintViolationError,
    InvalidTextRepresentationError,
)

from billing.domain.scope import Scope
from billing.sandbox.development_key import DevelopmentKey
from billing.store.tables import metadata
from tests.factories.client import BillingClient
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    Row,
    add_event,
    assert_violates,
    attempt,
    connected,
    insert,
    make_ledger_book,
)

TABLES = sorted(metadata.tables)
SCOPED_TABLES = sorted(set(TABLES) - {"tenants"})
REFERRING_TABLES = sorted(name for name, t in metadata.tables.items() if t.foreign_keys)
# SELECT ... FOR UPDATE of a plan asks for the right; a trigger refuses the update itself.
LOCKED_BY_UPDATE_RIGHT = {"plans"}


@pytest.fixture(scope="module", params=["another tenant", "test data"])
async def elsewhere(
    request: pytest.FixtureRequest,
    channel: grpc.aio.Channel,
    signing_key: DevelopmentKey,
    session_clock: FakeClock,
    database_url: str,
    book: LedgerBook,
) -> LedgerBook:
    """A ledger of the same content, which is another tenant's or the same tenant's test data."""
    session_clock.set(START)
    client = BillingClient(channel, signing_key)
    if request.param == "test data":
        client = client.for_tenant(book.scope.tenant_id).in_test_mode()
    return await make_ledger_book(client, database_url)


@pytest.fixture
async def unscoped(database_url: str) -> AsyncIterator[Connection]:
    """The application role in a transaction that names no scope, after one that did."""
    async with connected(database_url) as connection:
        async with connection.transaction():
            await connection.execute("SET LOCAL billing.tenant_id = 'somebody'")
            await connection.execute("SET LOCAL billing.livemode = 'true'")
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SET LOCAL ROLE billing_app")
        yield connection
        await transaction.rollback()


async def row_of(connection: Connection, table: str, scope: Scope) -> Row:
    """Some row of a table, for a superuser."""
    text = await connection.fetchval(
        f"SELECT to_jsonb(t)::text FROM {table} t WHERE tenant_id = $1 AND livemode = $2 LIMIT 1",
        scope.tenant_id,
        scope.livemode,
    )
    assert text is not None, f"the book has rows in {table}"
    return json.loads(text)  # type: ignore[no-any-return]


class TestRights:
    async def test_the_role_is_nobody(self, app: Connection) -> None:
        role = await app.fetchrow(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolcanlogin"
            " FROM pg_roles WHERE rolname = current_user"
        )
        memberships = await app.fetchval(
            "SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole"
        )
        owned = await app.fetchval(
            "SELECT count(*) FROM pg_shdepend WHERE refobjid = current_user::regrole"
            " AND deptype = 'o'"
        )

        assert role is not None
        assert not any(role.values())
        assert (memberships, owned) == (0, 0)

    @pytest.mark.parametrize("table", TABLES)
    async def test_it_reads_and_adds_but_removes_nothing(self, app: Connection, table: str) -> None:
        rights = ["SELECT", "INSERT", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"]

        held = {
            right
            for right in rights
            if await app.fetchval("SELECT has_table_privilege($1, $2)", table, right)
        }

        assert held == {"SELECT", "INSERT"}

    @pytest.mark.parametrize("table", sorted(set(TABLES) - LOCKED_BY_UPDATE_RIGHT))
    async def test_it_changes_no_rows_identity(self, app: Connection, table: str) -> None:
        keys = {column.name for column in metadata.tables[table].primary_key} | {"subscription_id"}

        changing = {
            column.name
            for column in metadata.tables[table].columns
            if await app.fetchval(
                "SELECT has_column_privilege($1, $2, 'UPDATE')", table, column.name
            )
        }

        assert not changing & keys

    @pytest.mark.parametrize(
        ("table", "fixed"),
        [
            (
                "billing_periods",
                {"subscription_id", "plan_version_id", "anchor_at", "period_start"},
            ),
            (
                "subscriptions",
                {
                    "customer_id",
                    "plan_id",
                    "currency",
                    "started_at",
                    "receivable_account_id",
                    "credit_application",
                    "created_at",
                },
            ),
            (
                "refunds",
                {
                    "payment_id",
                    "subscription_id",
                    "amount",
                    "currency",
                    "reason",
                    "credit_policy",
                    "reversed_amount",
                    "deficit_amount",
                    "notes",
                    "initiated_by_user_id",
                    "ledger_transaction_id",
                    "created_at",
                },
            ),
        ],
    )
    async def test_what_it_never_changes(
        self, app: Connection, table: str, fixed: set[str]
    ) -> None:
        """Of tables with a life, beside their keys."""
        keys = {column.name for column in metadata.tables[table].primary_key}
        refused = {
            column.name
            for column in metadata.tables[table].columns
            if not await app.fetchval(
                "SELECT has_column_privilege($1, $2, 'UPDATE')", table, column.name
            )
        }

        assert refused - keys == fixed

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TABLE public.mine ()",
            "CREATE SCHEMA mine",
            "CREATE FUNCTION public.mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
            "CREATE OR REPLACE FUNCTION public.refuse_change() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN RETURN NEW; END'",
            "CREATE TRIGGER mine BEFORE INSERT ON ledger_entries"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()",
            "CREATE POLICY mine ON ledger_entries USING (true)",
            "ALTER TABLE ledger_entries DISABLE TRIGGER ALL",
            "ALTER TABLE ledger_entries DISABLE TRIGGER entries_are_never_deleted",
            "ALTER TABLE ledger_entries DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE ledger_entries DROP CONSTRAINT ck_ledger_entries_entry_type",
            "DROP TRIGGER facts_never_change ON usage_events",
            "ALTER TABLE refunds DISABLE TRIGGER refunds_fit_their_payment",
            "ALTER TABLE payments DISABLE TRIGGER a_terminal_status_is_final",
            "ALTER TABLE usage_credit_balances DROP CONSTRAINT"
            " ck_usage_credit_balances_remaining_amount",
            "DROP POLICY one_scope ON ledger_entries",
            "DROP TABLE ledger_entries",
            "SET LOCAL session_replication_role = replica",
            "UPDATE alembic_version SET version_num = '0000'",
        ],
    )
    async def test_it_cannot_take_a_guard_away(self, app: Connection, statement: str) -> None:
        with pytest.raises(InsufficientPrivilegeError):
            await attempt(app, statement)

    async def test_it_cannot_put_row_security_aside(self, app: Connection) -> None:
        await app.execute("SET LOCAL row_security = off")

        with pytest.raises(InsufficientPrivilegeError, match="row-level security"):
            await attempt(app, "SELECT FROM ledger_entries")


class TestRowSecurity:
    @pytest.mark.parametrize("table", SCOPED_TABLES)
    async def test_one_scope_alone_is_visible(
        self, app: Connection, book: LedgerBook, elsewhere: LedgerBook, table: str
    ) -> None:
        scopes = await app.fetch(f"SELECT DISTINCT tenant_id, livemode FROM {table}")
        of_others = await app.fetchval(
            f"SELECT count(*) FROM {table} WHERE tenant_id = $1 AND livemode = $2",
            elsewhere.scope.tenant_id,
            elsewhere.scope.livemode,
        )

        assert [tuple(scope) for scope in scopes] == [(book.scope.tenant_id, book.scope.livemode)]
        assert of_others == 0

    @pytest.mark.parametrize("table", SCOPED_TABLES)
    async def test_rows_are_added_to_the_own_scope_alone(
        self, app: Connection, owner: Connection, elsewhere: LedgerBook, table: str
    ) -> None:
        row = await row_of(owner, table, elsewhere.scope)

        with pytest.raises(InsufficientPrivilegeError, match="violates row-level security policy"):
            await insert(app, table, row)

    @pytest.mark.parametrize("table", SCOPED_TABLES)
    async def test_without_a_scope_there_is_nothing(
        self, unscoped: Connection, owner: Connection, book: LedgerBook, table: str
    ) -> None:
        row = await row_of(owner, table, book.scope)

        assert await unscoped.fetchval(f"SELECT count(*) FROM {table}") == 0
        with pytest.raises(InsufficientPrivilegeError, match="violates row-level security policy"):
            await insert(unscoped, table, row)

    async def test_no_row_of_another_scope_is_changed(
        self, app: Connection, book: LedgerBook, elsewhere: LedgerBook
    ) -> None:
        pause = "UPDATE subscriptions SET status = 'paused', paused_at = now() WHERE id = $1"

        assert await attempt(app, pause, elsewhere.subscription_id) == "UPDATE 0"
        assert await attempt(app, pause, book.subscription_id) == "UPDATE 1"

    async def test_a_livemode_that_is_none_is_an_error(self, unscoped: Connection) -> None:
        await unscoped.execute("SET LOCAL billing.tenant_id = 'somebody'")
        await unscoped.execute("SET LOCAL billing.livemode = 'maybe'")

        with pytest.raises(InvalidTextRepresentationError):
            await attempt(unscoped, "SELECT FROM ledger_entries")


class TestReferencesAcrossScopes:
    @pytest.mark.parametrize("table", REFERRING_TABLES)
    async def test_no_row_refers_to_another_scope(
        self, owner: Connection, book: LedgerBook, elsewhere: LedgerBook, table: str
    ) -> None:
        """Not even for a superuser: what the row names does not exist in the scope it moves to."""
        row = await row_of(owner, table, book.scope)
        moved: dict[str, Any] = {
            "tenant_id": elsewhere.scope.tenant_id,
            "livemode": elsewhere.scope.livemode,
        }

        with pytest.raises(IntegrityConstraintViolationError) as refusal:
            await insert(owner, table, row | moved)
        if table != "ledger_entries":  # whose accounts a trigger looks at first
            assert isinstance(refusal.value, ForeignKeyViolationError)

    async def test_an_entry_of_another_scopes_event(
        self, app: Connection, owner: Connection, book: LedgerBook, elsewhere: LedgerBook
    ) -> None:
        """All else about the entry is right."""
        event_id = await owner.fetchval(
            "SELECT id FROM usage_events WHERE subscription_id = $1", elsewhere.subscription_id
        )

        with pytest.raises(ForeignKeyViolationError) as refusal:
            await insert(app, "ledger_entries", book.usage_cost(event_id))
        assert_violates(refusal, "fk_ledger_entries_usage_events")

    @pytest.mark.parametrize("leg", ["debit_account_id", "credit_account_id"])
    async def test_an_entry_on_another_scopes_account(
        self, app: Connection, book: LedgerBook, elsewhere: LedgerBook, leg: str
    ) -> None:
        accounts = {
            "debit_account_id": elsewhere.receivable_id,
            "credit_account_id": elsewhere.revenue_id("usage_revenue"),
        }
        entry = book.usage_cost(await add_event(app, book)) | {leg: accounts[leg]}

        with pytest.raises(IntegrityConstraintViolationError, match="an unknown account"):
            await insert(app, "ledger_entries", entry)
