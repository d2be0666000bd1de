"""The refunds of a payment are never more than the payment, whoever writes them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from asyncpg import (
    CheckViolationError,
    ForeignKeyViolationError,
    IntegrityConstraintViolationError,
    UniqueViolationError,
)

from billing.domain.identifiers import PAYMENT, SUBSCRIPTION, from_typeid
from billing.domain.scope import Scope
from tests.factories.client import BillingClient
from tests.factories.clock import START
from tests.factories.credit_rows import CreditRows
from tests.factories.credits import create_payment
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    Row,
    assert_violates,
    attempt,
    connected,
    insert,
)

FAIL = "UPDATE refunds SET status = 'failed', failure_reason = 'closed' WHERE id = $1"
CONFIRMED: Row = {
    "status": "succeeded",
    "gateway_refund_id": "re_1",
    "refund_processed_at": START,
}
TOO_MUCH = r"the refunds of payment .* would be 120, it is 100"
BLOCKED = "SELECT cardinality(pg_blocking_pids($1)) > 0"


@pytest.fixture
def rows(app: Connection, book: LedgerBook) -> CreditRows:
    """Rows to add to the book in the test's transaction."""
    return CreditRows(app, book)


class TestRefunds:
    @pytest.mark.parametrize(
        ("changes", "constraint"),
        [
            ({"status": "lost"}, "status"),
            ({"credit_policy": "shrug"}, "credit_policy"),
            ({"amount": 0}, "amount"),
            ({"clawed_back_amount": -1}, "parts"),
            ({"reversed_amount": -1}, "parts"),
            ({"deficit_amount": -1}, "parts"),
            ({"clawed_back_amount": 20, "reversed_amount": 20, "deficit_amount": 21}, "parts"),
            ({"status": "succeeded"}, "facts"),
            ({"gateway_refund_id": "re_1"}, "facts"),
            ({"refund_processed_at": START}, "facts"),
            ({"status": "failed"}, "facts"),
            ({"failure_reason": "closed"}, "facts"),
        ],
        ids=str,
    )
    async def test_a_refund_that_makes_no_sense(
        self, rows: CreditRows, changes: Row, constraint: str
    ) -> None:
        refund = rows.refund(await rows.add_payment()) | changes
        with pytest.raises(CheckViolationError) as refusal:
            await insert(rows.connection, "refunds", refund)
        assert_violates(refusal, f"ck_refunds_{constraint}")

    async def test_a_refund_is_of_a_payment_of_its_subscription(
        self, rows: CreditRows, book: LedgerBook
    ) -> None:
        refund = rows.refund(await rows.add_payment())
        refund["subscription_id"] = book.other_subscription_id
        with pytest.raises(ForeignKeyViolationError) as refusal:
            await insert(rows.connection, "refunds", refund)
        assert_violates(refusal, "fk_refunds_payments")

    async def test_the_same_money_goes_back_once(self, rows: CreditRows) -> None:
        payment = await rows.add_payment()
        await insert(rows.connection, "refunds", rows.refund(payment, amount=1, **CONFIRMED))
        with pytest.raises(UniqueViolationError) as refusal:
            await insert(rows.connection, "refunds", rows.refund(payment, amount=1, **CONFIRMED))
        assert_violates(refusal, "uq_refunds_gateway_refund")


class TestTheirSum:
    @pytest.mark.parametrize("first", [{}, CONFIRMED], ids=["pending", "confirmed"])
    async def test_it_is_at_most_the_payment(self, rows: CreditRows, first: Row) -> None:
        payment = await rows.add_payment()
        await insert(rows.connection, "refunds", rows.refund(payment, **first))

        with pytest.raises(IntegrityConstraintViolationError, match=TOO_MUCH):
            await insert(rows.connection, "refunds", rows.refund(payment))
        await insert(rows.connection, "refunds", rows.refund(payment, amount=40))
        with pytest.raises(IntegrityConstraintViolationError, match="would be 101, it is 100"):
            await insert(rows.connection, "refunds", rows.refund(payment, amount=1))

    async def test_those_of_one_statement_are_added_up(self, rows: CreditRows) -> None:
        payment = await rows.add_payment()
        with pytest.raises(IntegrityConstraintViolationError, match=TOO_MUCH):
            await insert(rows.connection, "refunds", *(rows.refund(payment) for _ in range(2)))
        await insert(
            rows.connection, "refunds", *(rows.refund(payment, amount=50) for _ in range(2))
        )

    async def test_failed_ones_do_not_count(self, rows: CreditRows) -> None:
        payment = await rows.add_payment()
        refund = await rows.add("refunds", rows.refund(payment))
        await attempt(rows.connection, FAIL, refund["id"])
        await insert(rows.connection, "refunds", rows.refund(payment))

    async def test_another_payment_is_another_sum(self, rows: CreditRows) -> None:
        for _ in range(2):
            await insert(rows.connection, "refunds", rows.refund(await rows.add_payment()))

    async def test_what_did_not_come_in_does_not_go_back(self, rows: CreditRows) -> None:
        pending = await rows.add("payments", rows.payment())
        failed = await rows.add(
            "payments", rows.payment(status="failed", failure_reason="no money")
        )
        for payment in (pending, failed):
            with pytest.raises(
                IntegrityConstraintViolationError, match="is not of a confirmed payment"
            ):
                await insert(rows.connection, "refunds", rows.refund(payment))

    async def test_it_goes_back_in_its_currency(self, rows: CreditRows) -> None:
        payment = await rows.add_payment()
        with pytest.raises(IntegrityConstraintViolationError, match="payment in its currency"):
            await insert(rows.connection, "refunds", rows.refund(payment, currency="EUR"))

    async def test_a_table_in_the_tables_place_deceives_nobody(self, rows: CreditRows) -> None:
        payment = await rows.add_payment()
        await rows.connection.execute(
            "CREATE TEMPORARY TABLE payments ON COMMIT DROP AS SELECT * FROM public.payments"
        )
        await rows.connection.execute("UPDATE pg_temp.payments SET amount = 1000")
        with pytest.raises(IntegrityConstraintViolationError, match="would be 101, it is 100"):
            await insert(rows.connection, "refunds", rows.refund(payment, amount=101))


class TestAtTheSameTime:
    """Of a tenant of its own: what these tests commit stays."""

    @pytest.fixture
    async def payment(self, client: BillingClient) -> Row:
        """A confirmed payment of 100."""
        subscription = await client.subscribe(await client.create_plan())
        payment = await create_payment(client, subscription.id, 100)
        return {
            "id": from_typeid(PAYMENT, payment.id),
            "subscription_id": from_typeid(SUBSCRIPTION, subscription.id),
        }

    @pytest.fixture
    async def connections(
        self, client: BillingClient, database_url: str
    ) -> AsyncIterator[tuple[Connection, Connection]]:
        """Two of the application, in the client's scope."""
        async with AsyncExitStack() as stack:
            first, second = [
                await stack.enter_async_context(connected(database_url)) for _ in range(2)
            ]
            for connection in (first, second):
                await connection.execute("SET ROLE billing_app")
                await connection.execute(f"SET billing.tenant_id = '{client.tenant_id}'")
                await connection.execute(f"SET billing.livemode = '{client.livemode}'")
            yield first, second

    @staticmethod
    async def insert_while_another_has(
        connections: tuple[Connection, Connection],
        book: LedgerBook,
        payment: Row,
        *,
        commit: bool,
    ) -> None:
        """Insert a refund of 60 beside another one, whose transaction ends once this one waits."""
        first, second = connections
        refunds = [CreditRows(each, book).refund(payment) for each in connections]
        transaction = first.transaction()
        await transaction.start()
        await insert(first, "refunds", refunds[0])
        waiting = asyncio.create_task(insert(second, "refunds", refunds[1]))
        async with asyncio.timeout(20):
            while not await first.fetchval(BLOCKED, second.get_server_pid()):
                assert not waiting.done(), "the second refund did not wait for the first"
                await asyncio.sleep(0.01)
        await (transaction.commit() if commit else transaction.rollback())
        await waiting

    @pytest.fixture
    def own_book(self, book: LedgerBook, client: BillingClient) -> LedgerBook:
        """The book of the tenant, of which only the scope counts here."""
        return replace(book, scope=Scope(client.tenant_id, client.livemode))

    async def test_the_second_sees_the_first(
        self,
        connections: tuple[Connection, Connection],
        own_book: LedgerBook,
        payment: Row,
    ) -> None:
        with pytest.raises(IntegrityConstraintViolationError, match=TOO_MUCH):
            await self.insert_while_another_has(connections, own_book, payment, commit=True)

    async def test_a_first_that_is_taken_back_does_not_count(
        self,
        connections: tuple[Connection, Connection],
        own_book: LedgerBook,
        payment: Row,
        database_url: str,
    ) -> None:
        await self.insert_while_another_has(connections, own_book, payment, commit=False)

        async with connected(database_url) as connection:
            refunded = await connection.fetch(
                "SELECT amount FROM refunds WHERE payment_id = $1", payment["id"]
            )
        assert [row["amount"] for row in refunded] == [60]
