"""Books in which everything happened once, and ways to damage them past the service."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import NamedTuple

from billing.domain import identifiers
from billing.v1 import refund_pb2
from tests.factories.billing_runs import APRIL, MARCH
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjust_credit, void_credit
from tests.factories.credits import confirm_refund, create_refund, expire_credits, fail_refund
from tests.factories.customers import STORAGE, Customer, new_customer
from tests.factories.ledger_book import connected

REVERT_ALL = refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL
KEEP = refund_pb2.REFUND_CREDIT_POLICY_KEEP

PREFIXES = {
    "billing_periods": identifiers.BILLING_PERIOD,
    "billing_run_results": identifiers.BILLING_RUN_RESULT,
    "calculations": identifiers.CALCULATION,
    "charges": identifiers.CHARGE,
    "invoice_requests": identifiers.BILLING_PERIOD,
    "ledger_entries": identifiers.LEDGER_ENTRY,
    "payments": identifiers.PAYMENT,
    "recalculation_documents": identifiers.RECALCULATION_DOCUMENT,
    "recalculations": identifiers.CALCULATION_RUN,
    "refunds": identifiers.REFUND,
    "subscription_usage_meters": identifiers.SUBSCRIPTION_USAGE_METER,
    "usage_credit_applications": identifiers.CREDIT_APPLICATION,
    "usage_credit_balance_adjustments": identifiers.CREDIT_BALANCE_ADJUSTMENT,
    "usage_credit_balances": identifiers.USAGE_CREDIT,
    "usage_credits": identifiers.USAGE_CREDIT,
    "usage_event_corrections": identifiers.USAGE_EVENT_CORRECTION,
    "usage_events": identifiers.USAGE_EVENT,
    "write_offs": identifiers.WRITE_OFF,
}
_KEYS = {"usage_credit_balances": "usage_credit_id", "invoice_requests": "billing_period_id"}


async def _nothing() -> None:
    return


async def rich_books(
    client: BillingClient, clock: FakeClock, *, after_each: Callable[[], Awaitable[None]] = _nothing
) -> Customer:
    """Live through March and half of April; ``after_each`` is called after every operation.

    Everything ends up in the books: usage in both periods, credits of every kind of end,
    settlements, a refund of each outcome, an adjustment each way, a deficit, an expiry.
    """
    customer = await new_customer(client, clock, started_at=MARCH)
    for operation in (_use_in_march, _pay_and_adjust, _bill_march, _settle_and_refund, _go_on):
        async for _ in operation(customer):
            await after_each()
    return customer


async def _use_in_march(customer: Customer) -> AsyncIterator[object]:
    yield await customer.use(150)
    yield await customer.use(40, STORAGE)
    yield await customer.use(1, STORAGE, at=MARCH + timedelta(days=1))
    yield await customer.grant(120, effective_at=MARCH)
    yield await customer.grant(70, effective_at=MARCH, component_id=customer.component_ids[1])
    yield await customer.grant(25, expires_at=customer.clock.now + timedelta(days=2))
    yield await customer.use(3)
    customer.clock.advance(days=3)
    yield await expire_credits(customer.client)


async def _pay_and_adjust(customer: Customer) -> AsyncIterator[object]:
    payment = await customer.pay(400)
    yield payment
    yield await customer.pay(60, confirm=False)
    goodwill = await customer.grant(90, effective_at=APRIL + timedelta(days=60))
    yield await adjust_credit(customer.client, goodwill.id, 10)
    yield await adjust_credit(customer.client, goodwill.id, -30)
    yield await adjust_credit(customer.client, goodwill.id, -100, allow_deficit=True)
    voided = await customer.grant(33)
    yield await void_credit(customer.client, voided.id)
    yield await create_refund(customer.client, payment.id, 40)
    refund = await create_refund(customer.client, payment.id, 30)
    yield refund
    yield await confirm_refund(customer.client, refund.id)
    failing = await create_refund(customer.client, payment.id, 20)
    yield failing
    yield await fail_refund(customer.client, failing.id)


async def _bill_march(customer: Customer) -> AsyncIterator[object]:
    yield await customer.bill()


async def _settle_and_refund(customer: Customer) -> AsyncIterator[object]:
    settled = await customer.pay(500, billing_period_id=customer.period_id)
    yield settled
    refund = await create_refund(customer.client, settled.id, 200, credit_policy=REVERT_ALL)
    yield refund
    yield await confirm_refund(customer.client, refund.id)
    kept = await create_refund(customer.client, settled.id, 50, credit_policy=KEEP)
    yield kept
    yield await confirm_refund(customer.client, kept.id)
    yield await create_refund(customer.client, settled.id, 11, credit_policy=REVERT_ALL)


async def _go_on(customer: Customer) -> AsyncIterator[object]:
    yield await customer.use(10)
    yield await customer.use(7, at=MARCH + timedelta(days=5))  # late
    yield await customer.use(5, STORAGE)
    yield await customer.grant(500)


class Damage(NamedTuple):
    """One row of a table changed by hand: ``change`` is an SQL assignment.

    ``row`` is the condition that finds it: the oldest one.
    """

    table: str
    row: str
    change: str


async def damage(url: str, client: BillingClient, what: Damage) -> str:
    """Change a row of the client's tenant as a superuser, past all triggers and foreign keys.

    Returns the id that people know it by.
    """
    table, row, change = what
    key = _KEYS.get(table, "id")
    async with connected(url) as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        verb = "DELETE FROM" if change == "DELETE" else "UPDATE"
        assignment = "" if change == "DELETE" else f"SET {change}"
        changed = await connection.fetch(
            f"{verb} {table} AS t {assignment} WHERE (t.tenant_id, t.{key}) = ("
            f" SELECT t.tenant_id, t.{key} FROM {table} t"
            f" WHERE t.tenant_id = $1 AND ({row}) ORDER BY t.{key} LIMIT 1"
            f") RETURNING t.{key} AS id",
            client.tenant_id,
        )
    assert len(changed) == 1, f"{len(changed)} rows of {table} where {row}"
    return identifiers.to_typeid(PREFIXES[table], changed[0]["id"])
