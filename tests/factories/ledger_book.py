"""A scope with a ledger in it, made by the service, and rows to try to add to it by hand."""

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg
import pytest

from billing.domain.identifiers import SUBSCRIPTION, USAGE_METER, from_typeid
from billing.domain.scope import Scope
from tests.factories.calculations import recalculate, void_event, write_off
from tests.factories.client import BillingClient, component
from tests.factories.clock import START
from tests.factories.credit_changes import adjust_credit
from tests.factories.credits import confirm_refund, create_payment, create_refund, grant_credit

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Row: TypeAlias = dict[str, Any]

_OPEN_PERIOD = """
SELECT p.id AS period_id, m.id AS tally_id, m.component_id, e.ledger_transaction_id
FROM billing_periods p
JOIN subscription_usage_meters m USING (tenant_id, livemode, subscription_id)
JOIN ledger_entries e USING (tenant_id, livemode, subscription_id, billing_period_id)
WHERE p.tenant_id = $1 AND p.livemode = $2 AND p.subscription_id = $3 AND p.status = 'open'
  AND m.billing_period_id = p.id AND e.entry_type = 'usage_cost'
"""
_PERIODS = """
SELECT id, subscription_id, status FROM billing_periods
WHERE tenant_id = $1 AND livemode = $2 ORDER BY period_start
"""
_ACCOUNTS = """
SELECT kind, currency, subscription_id, id FROM ledger_accounts
WHERE tenant_id = $1 AND livemode = $2
"""


@dataclass(frozen=True)
class LedgerBook:
    """A subscription with a billed month, and usage in the open one; two more beside it.

    It has a promotion that paid usage, and a payment of which a part was refunded; the other one
    has a payment that is being refunded.
    """

    scope: Scope
    subscription_id: UUID
    other_subscription_id: UUID
    euro_subscription_id: UUID
    usage_meter_id: UUID
    component_id: UUID
    billed_period_id: UUID
    open_period_id: UUID
    other_period_id: UUID
    tally_id: UUID
    ledger_transaction_id: UUID
    accounts: Mapping[tuple[str, str, UUID | None], UUID]

    @property
    def receivable_id(self) -> UUID:
        """What the subscription owes."""
        return self.accounts["receivable", "USD", self.subscription_id]

    def revenue_id(self, kind: str, currency: str = "USD") -> UUID:
        """A revenue account of the tenant, or another one that it has once a currency."""
        return self.accounts[kind, currency, None]

    @property
    def scope_columns(self) -> Row:
        """What every row begins with."""
        return {"tenant_id": self.scope.tenant_id, "livemode": self.scope.livemode}

    def usage_event(self) -> Row:
        """A new event of the open period."""
        return self.scope_columns | {
            "id": uuid.uuid4(),
            "idempotency_key": uuid.uuid4().hex,
            "payload_hash": "\\x00",
            "subscription_id": self.subscription_id,
            "subscription_usage_meter_id": self.tally_id,
            "quantity": 1,
            "event_timestamp": START,
            "disposition": "rated",
            "received_at": START,
        }

    def charge(self) -> Row:
        """The recurring charge of the open period."""
        return self.scope_columns | {
            "id": uuid.uuid4(),
            "subscription_id": self.subscription_id,
            "billing_period_id": self.open_period_id,
            "billing_run_id": uuid.uuid4(),
            "calculation_run_id": uuid.uuid4(),
            "position": 0,
            "charge_type": "recurring",
            "description": "Pro Plan",
            "quantity": 1,
            "unit_price": 2000,
            "amount": 2000,
            "currency": "USD",
            "created_at": START,
        }

    def usage_cost(self, usage_event_id: UUID) -> Row:
        """The pending entry of a new event."""
        return self.entry(
            entry_type="usage_cost",
            credit_account_id=self.revenue_id("usage_revenue"),
            source_usage_event_id=usage_event_id,
            usage_meter_id=self.usage_meter_id,
        )

    def charge_billed(self, charge_id: UUID) -> Row:
        """The pending entry of a new charge."""
        return self.entry(
            entry_type="charge_billed",
            credit_account_id=self.revenue_id("subscription_revenue"),
            source_charge_id=charge_id,
        )

    def entry(self, **columns: object) -> Row:
        """A pending entry of the open period that debits the receivable."""
        return (
            self.scope_columns
            | {
                "subscription_id": self.subscription_id,
                "ledger_transaction_id": self.ledger_transaction_id,
                "id": uuid.uuid4(),
                "status": "pending",
                "amount": -2,
                "currency": "USD",
                "debit_account_id": self.receivable_id,
                "billing_period_id": self.open_period_id,
                "description": "By hand",
                "entry_timestamp": START,
            }
            | columns
        )


async def make_ledger_book(client: BillingClient, url: str) -> LedgerBook:
    """Make a book by the service's own calls; its clock shows START."""
    meter_id = await client.create_meter()
    components = [component(meter_id, unit_price="1.5")]
    plan_id = await client.create_plan(components=components)
    euro_plan_id = await client.create_plan(currency="EUR", components=components)
    began = START - timedelta(days=40)
    subscription = await client.subscribe(plan_id, started_at=began)
    other = await client.subscribe(plan_id, started_at=began)
    euro = await client.subscribe(euro_plan_id, started_at=began)
    await client.use(subscription.id, meter_id, "2", began)
    promotion = await grant_credit(client, subscription.id, 100, effective_at=began)
    wrong = await client.use(euro.id, meter_id, "100", began)
    run = await client.run_billing()
    await client.use(subscription.id, meter_id, "1", START)
    await void_event(client, wrong.usage_event_id)
    [billed] = [r for r in run.results if r.subscription_id == euro.id]
    await recalculate(client, euro.id, billed.billing_period_id)
    await write_off(client, euro.id, billed.billing_period_id, amount=1, currency="EUR")
    await adjust_credit(client, promotion.id, 5)
    payment = await create_payment(client, subscription.id, 50)
    refund = await create_refund(client, payment.id, 20)
    await confirm_refund(client, refund.id)
    await create_refund(client, (await create_payment(client, other.id, 30)).id, 10)

    scope = Scope(client.tenant_id, client.livemode)
    subscription_id = from_typeid(SUBSCRIPTION, subscription.id)
    async with connected(url) as connection:
        row = await connection.fetchrow(
            _OPEN_PERIOD, scope.tenant_id, scope.livemode, subscription_id
        )
        accounts = await connection.fetch(_ACCOUNTS, scope.tenant_id, scope.livemode)
        listed = await connection.fetch(_PERIODS, scope.tenant_id, scope.livemode)
    assert row is not None
    other_id = from_typeid(SUBSCRIPTION, other.id)
    periods = {(p["subscription_id"], p["status"] == "open"): p["id"] for p in listed}
    return LedgerBook(
        scope=scope,
        subscription_id=subscription_id,
        other_subscription_id=other_id,
        euro_subscription_id=from_typeid(SUBSCRIPTION, euro.id),
        usage_meter_id=from_typeid(USAGE_METER, meter_id),
        component_id=row["component_id"],
        billed_period_id=periods[subscription_id, False],
        open_period_id=row["period_id"],
        other_period_id=periods[other_id, True],
        tally_id=row["tally_id"],
        ledger_transaction_id=row["ledger_transaction_id"],
        accounts={
            (a["kind"], a["currency"], a["subscription_id"]): a["id"]
            for a in accounts
            if a["kind"] != "credit"
        },
    )


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A connection as the role of the URL: in tests, a superuser who owns everything."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def owner_transaction(url: str) -> AsyncIterator[Connection]:
    """A transaction of the superuser, rolled back at its end."""
    async with connected(url) as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield connection
        await transaction.rollback()


@asynccontextmanager
async def application_transaction(url: str, scope: Scope | None) -> AsyncIterator[Connection]:
    """A transaction of the application role in a scope, rolled back at its end."""
    async with owner_transaction(url) as connection:
        await connection.execute("SET LOCAL ROLE billing_app")
        if scope is not None:
            await connection.execute(f"SET LOCAL billing.tenant_id = '{scope.tenant_id}'")
            await connection.execute(f"SET LOCAL billing.livemode = '{scope.livemode}'")
        yield connection


async def insert(connection: Connection, table: str, *rows: Mapping[str, object]) -> None:
    """Insert rows by one statement; in a savepoint, so that a refusal ends nothing else."""
    async with connection.transaction():
        await connection.execute(
            f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, $1)",
            json.dumps(rows, default=str),
        )


async def attempt(connection: Connection, statement: str, *args: object) -> str:
    """Run a statement in a savepoint, and return its command tag."""
    async with connection.transaction():
        return await connection.execute(statement, *args)


async def add_event(connection: Connection, book: LedgerBook) -> UUID:
    """Insert a new event without its entry, and return its id."""
    event = book.usage_event()
    await insert(connection, "usage_events", event)
    return UUID(str(event["id"]))


async def add_charge(connection: Connection, book: LedgerBook) -> UUID:
    """Insert the recurring charge of the open period, and return its id."""
    charge = book.charge()
    await insert(connection, "charges", charge)
    return UUID(str(charge["id"]))


def assert_violates(refusal: pytest.ExceptionInfo[Any], constraint: str) -> None:
    """Assert that the refusal is due to the constraint."""
    assert refusal.value.constraint_name == constraint
