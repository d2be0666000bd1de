"""What an entry may say: the database knows the sign, the sources and the accounts of each type."""

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from asyncpg import (
    CheckViolationError,
    ForeignKeyViolationError,
    IntegrityConstraintViolationError,
    UniqueViolationError,
)

from billing.domain.ledger import LedgerAccountKind
from billing.store.tables import LEDGER_ENTRY_SOURCES
from tests.factories.clock import START
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    Row,
    add_charge,
    add_event,
    assert_violates,
    attempt,
    insert,
)

SOMETHING = "7d444840-9dc0-41d1-b245-5ffdce74fad2"


def _others(*sources: str) -> list[str]:
    return [source for source in LEDGER_ENTRY_SOURCES if source not in sources]


class TestEntryTypes:
    async def test_what_the_types_allow(self, app: Connection, book: LedgerBook) -> None:
        """A cost may be zero; a charge may be negative, which exchanges its accounts."""
        free = book.usage_cost(await add_event(app, book)) | {"amount": 0}
        returned = book.charge_billed(await add_charge(app, book)) | {
            "amount": 2,
            "debit_account_id": book.revenue_id("subscription_revenue"),
            "credit_account_id": book.receivable_id,
        }

        await insert(app, "ledger_entries", free, returned)

    @pytest.mark.parametrize(
        "changes",
        [
            {"amount": 1},
            {"source_usage_event_id": None},
            {"billing_period_id": None},
            {"usage_meter_id": None},
            *[{source: SOMETHING} for source in _others("source_usage_event_id")],
        ],
        ids=str,
    )
    async def test_a_usage_cost_that_makes_no_sense(
        self, app: Connection, book: LedgerBook, changes: dict[str, Any]
    ) -> None:
        entry = book.usage_cost(await add_event(app, book)) | changes

        with pytest.raises(CheckViolationError) as refusal:
            await insert(app, "ledger_entries", entry)
        assert_violates(refusal, "ck_ledger_entries_entry_type")

    @pytest.mark.parametrize(
        "changes",
        [
            {"amount": 0},
            {"source_charge_id": None},
            {"billing_period_id": None},
            *[{source: SOMETHING} for source in _others("source_charge_id")],
        ],
        ids=str,
    )
    async def test_a_charge_billed_that_makes_no_sense(
        self, app: Connection, book: LedgerBook, changes: dict[str, Any]
    ) -> None:
        entry = book.charge_billed(await add_charge(app, book)) | changes

        with pytest.raises(CheckViolationError) as refusal:
            await insert(app, "ledger_entries", entry)
        assert_violates(refusal, "ck_ledger_entries_entry_type")

    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"entry_type": "gift"}, "ck_ledger_entries_entry_type"),
            ({"status": "draft"}, "ck_ledger_entries_status"),
            ({"status": "posted"}, "ck_ledger_entries_lifecycle"),
            ({"posted_at": START}, "ck_ledger_entries_lifecycle"),
            (
                {"status": "posted", "posted_at": START, "discarded_at": START},
                "ck_ledger_entries_lifecycle",
            ),
        ],
    )
    async def test_a_type_or_a_life_that_there_is_not(
        self, app: Connection, book: LedgerBook, changes: dict[str, Any], constraint: str
    ) -> None:
        entry = book.usage_cost(await add_event(app, book)) | changes

        with pytest.raises(CheckViolationError) as refusal:
            await insert(app, "ledger_entries", entry)
        assert_violates(refusal, constraint)


class TestNaturalKeys:
    async def test_an_event_costs_once_for_ever(self, app: Connection, book: LedgerBook) -> None:
        event_id = await add_event(app, book)
        first = book.usage_cost(event_id)
        await insert(app, "ledger_entries", first)
        discard = "UPDATE ledger_entries SET discarded_at = now() WHERE id = $1"
        await attempt(app, discard, first["id"])

        with pytest.raises(UniqueViolationError) as refusal:
            await insert(app, "ledger_entries", book.usage_cost(event_id))
        assert_violates(refusal, "uq_ledger_entries_usage_cost")

    async def test_a_charge_is_billed_once(self, app: Connection, book: LedgerBook) -> None:
        charge_id = await add_charge(app, book)
        await insert(app, "ledger_entries", book.charge_billed(charge_id))

        with pytest.raises(UniqueViolationError) as refusal:
            await insert(app, "ledger_entries", book.charge_billed(charge_id))
        assert_violates(refusal, "uq_ledger_entries_charge_billed")

    @pytest.mark.parametrize(
        "kind",
        [{}, {"charge_type": "usage", "component_id": SOMETHING}],
        ids=["recurring", "usage"],
    )
    async def test_a_period_is_charged_once_for_a_thing(
        self, app: Connection, book: LedgerBook, kind: Row
    ) -> None:
        await insert(app, "charges", book.charge() | kind)

        with pytest.raises(UniqueViolationError) as refusal:
            await insert(app, "charges", book.charge() | kind)
        assert_violates(refusal, "uq_charges_live")

    async def test_an_idempotency_key_is_used_once(self, app: Connection, book: LedgerBook) -> None:
        await insert(app, "usage_events", book.usage_event() | {"idempotency_key": "key"})

        with pytest.raises(UniqueViolationError) as refusal:
            await insert(app, "usage_events", book.usage_event() | {"idempotency_key": "key"})
        assert_violates(refusal, "uq_usage_events_tenant_id_livemode_idempotency_key")

    @pytest.mark.parametrize("kind", [kind for kind in LedgerAccountKind if kind != "credit"])
    async def test_an_account_exists_once(
        self, app: Connection, book: LedgerBook, kind: str
    ) -> None:
        with pytest.raises(UniqueViolationError, match="uq_ledger_accounts"):
            await attempt(
                app,
                "INSERT INTO ledger_accounts SELECT tenant_id, livemode, gen_random_uuid(), kind,"
                " currency, subscription_id, created_at FROM ledger_accounts WHERE kind = $1",
                kind,
            )

    async def test_a_subscription_has_an_account_for_each_credit(
        self, app: Connection, book: LedgerBook
    ) -> None:
        """And a subscription's account is of a subscription, a tenant's of none."""
        accounts = await app.fetch("SELECT to_jsonb(a)::text FROM ledger_accounts a")
        for account in map(json.loads, (row[0] for row in accounts)):
            again = account | {"id": str(uuid4())}
            if account["kind"] == "credit":
                await insert(app, "ledger_accounts", again)
            other = None if account["subscription_id"] else str(book.subscription_id)
            with pytest.raises(CheckViolationError) as refusal:
                await insert(app, "ledger_accounts", again | {"subscription_id": other})
            assert_violates(refusal, "ck_ledger_accounts_subscription_id")

    async def test_a_calculation_of_a_component_is_active_once(
        self, app: Connection, book: LedgerBook
    ) -> None:
        [calculation] = await app.fetch(
            "SELECT to_jsonb(c)::text FROM calculations c WHERE subscription_id = $1",
            book.subscription_id,
        )
        again = json.loads(calculation[0]) | {
            "id": str(uuid4()),
            "calculation_run_id": str(uuid4()),
        }

        with pytest.raises(UniqueViolationError) as refusal:
            await insert(app, "calculations", again)
        assert_violates(refusal, "uq_calculations_active")


class TestReferences:
    """What an entry names is there, and belongs to the same subscription."""

    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"source_usage_event_id": SOMETHING}, "fk_ledger_entries_usage_events"),
            ({"ledger_transaction_id": SOMETHING}, "fk_ledger_entries_ledger_transactions"),
        ],
    )
    async def test_what_an_entry_names_exists(
        self, app: Connection, book: LedgerBook, changes: dict[str, Any], constraint: str
    ) -> None:
        entry = book.usage_cost(await add_event(app, book)) | changes

        with pytest.raises(ForeignKeyViolationError) as refusal:
            await insert(app, "ledger_entries", entry)
        assert_violates(refusal, constraint)

    async def test_a_charge_that_an_entry_names_exists(
        self, app: Connection, book: LedgerBook
    ) -> None:
        with pytest.raises(ForeignKeyViolationError) as refusal:
            await insert(app, "ledger_entries", book.charge_billed(UUID(SOMETHING)))
        assert_violates(refusal, "fk_ledger_entries_charges")

    async def test_an_entry_is_of_its_transactions_subscription(
        self, app: Connection, book: LedgerBook
    ) -> None:
        entry = book.usage_cost(await add_event(app, book)) | {
            "subscription_id": book.other_subscription_id,
            "debit_account_id": book.accounts["receivable", "USD", book.other_subscription_id],
        }

        with pytest.raises(ForeignKeyViolationError) as refusal:
            await insert(app, "ledger_entries", entry)
        assert_violates(refusal, "fk_ledger_entries_ledger_transactions")

    async def test_an_event_is_of_its_aggregates_subscription(
        self, app: Connection, book: LedgerBook
    ) -> None:
        event = book.usage_event() | {"subscription_id": book.other_subscription_id}

        with pytest.raises(ForeignKeyViolationError) as refusal:
            await insert(app, "usage_events", event)
        assert_violates(refusal, "fk_usage_events_subscription_usage_meters")


class TestAccounts:
    @staticmethod
    def wrong_accounts(book: LedgerBook) -> dict[str, Row]:
        receivable, revenue = book.receivable_id, book.revenue_id("usage_revenue")
        others = book.accounts["receivable", "USD", book.other_subscription_id]
        return {
            "exchanged legs": {"debit_account_id": revenue, "credit_account_id": receivable},
            "a charge's revenue": {"credit_account_id": book.revenue_id("subscription_revenue")},
            "no receivable": {"debit_account_id": book.revenue_id("subscription_revenue")},
            "two receivables": {"credit_account_id": others},
            "another subscription's receivable": {"debit_account_id": others},
            "unknown debit": {"debit_account_id": SOMETHING},
            "unknown credit": {"credit_account_id": SOMETHING},
            "another currency than both": {"currency": "EUR"},
            "another currency's revenue": {
                "credit_account_id": book.revenue_id("usage_revenue", "EUR")
            },
            "another currency's receivable": {
                "currency": "EUR",
                "credit_account_id": book.revenue_id("usage_revenue", "EUR"),
            },
        }

    async def test_entries_between_other_accounts_are_refused(
        self, app: Connection, owner: Connection, book: LedgerBook
    ) -> None:
        for changes in self.wrong_accounts(book).values():
            for connection in (app, owner):
                entry = book.usage_cost(await add_event(connection, book)) | changes
                with pytest.raises(
                    IntegrityConstraintViolationError, match="of type usage_cost cannot debit"
                ):
                    await insert(connection, "ledger_entries", entry)

    @pytest.mark.parametrize("amount", [-2, 2])
    async def test_a_charges_accounts_follow_its_sign(
        self, app: Connection, book: LedgerBook, amount: int
    ) -> None:
        revenue = book.revenue_id("subscription_revenue")
        accounts = {-2: (revenue, book.receivable_id), 2: (book.receivable_id, revenue)}[amount]
        entry = book.charge_billed(await add_charge(app, book)) | {
            "amount": amount,
            "debit_account_id": accounts[0],
            "credit_account_id": accounts[1],
        }

        with pytest.raises(
            IntegrityConstraintViolationError, match="of type charge_billed cannot debit"
        ):
            await insert(app, "ledger_entries", entry)

    async def test_an_entry_moves_value_between_two_accounts(
        self, app: Connection, book: LedgerBook
    ) -> None:
        entry = book.usage_cost(await add_event(app, book)) | {
            "credit_account_id": book.receivable_id
        }

        with pytest.raises(CheckViolationError) as refusal:
            await insert(app, "ledger_entries", entry)
        assert_violates(refusal, "ck_ledger_entries_two_accounts")

    async def test_one_wrong_entry_refuses_its_whole_statement(
        self, app: Connection, book: LedgerBook
    ) -> None:
        entries = [book.usage_cost(await add_event(app, book)) for _ in range(3)]
        entries[1]["credit_account_id"] = SOMETHING

        with pytest.raises(IntegrityConstraintViolationError, match="an unknown account"):
            await insert(app, "ledger_entries", *entries)
        await insert(app, "ledger_entries", entries[0], entries[2])

    async def test_a_table_in_the_tables_place_deceives_nobody(
        self, app: Connection, book: LedgerBook
    ) -> None:
        """Anybody may make temporary tables, and PostgreSQL looks for names among them first."""
        await app.execute(
            "CREATE TEMPORARY TABLE ledger_accounts ON COMMIT DROP AS"
            " SELECT * FROM public.ledger_accounts"
        )
        await app.execute(
            "UPDATE pg_temp.ledger_accounts SET kind = 'usage_revenue'"
            " WHERE kind = 'subscription_revenue'"
        )
        entry = book.usage_cost(await add_event(app, book)) | {
            "credit_account_id": book.revenue_id("subscription_revenue")
        }

        with pytest.raises(IntegrityConstraintViolationError, match="cannot debit"):
            await insert(app, "ledger_entries", entry)
