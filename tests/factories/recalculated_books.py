"""Books in which billed periods were put right, given up, and open ones estimated."""

from collections.abc import AsyncIterator, Awaitable, Callable

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.calculations import (
    amend,
    estimate,
    recalculate,
    recover,
    void_event,
    write_off,
)
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import create_payment


async def _nothing() -> None:
    return


async def recalculated_books(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    *,
    after_each: Callable[[], Awaitable[None]] = _nothing,
) -> CreditedSubscription:
    """Bill February, put it right three times, and leave something of everything to be done."""
    books = await subscribe_credited(client, clock, invoicing, holds_late_usage=True)
    async for _ in _live(books):
        await after_each()
    return books


async def _live(books: CreditedSubscription) -> AsyncIterator[object]:
    client = books.client
    first = await books.use(100, february(3))
    yield first
    second = await books.use(50, february(4), books.tokens)
    yield second
    yield await books.grant(60)
    yield await amend(client, first.usage_event_id, "120")
    yield await estimate(client, books.id)
    yield await amend(client, second.usage_event_id, "40")
    wrong = await books.use(7, february(5))
    yield await void_event(client, wrong.usage_event_id)
    billed = await books.bill()
    period_id = billed.billing_period_id
    yield billed
    # More is invoiced: what came late.
    yield await books.use(40, february(20))
    yield await recalculate(client, books.id, period_id)
    # Less is owed: the additional invoice is voided, and a part of the first one comes back.
    yield await amend(client, first.usage_event_id, "70")
    yield await recalculate(client, books.id, period_id)
    yield await create_payment(client, books.id, 50, billing_period_id=period_id)
    given_up = await write_off(client, books.id, period_id, amount=25)
    yield given_up
    yield await recover(client, given_up.id, amount=10)
    # Less than was paid and given up: some of both comes back.
    yield await void_event(client, first.usage_event_id)
    yield await recalculate(client, books.id, period_id)
    # What waits: a held event, a correction, and an estimate that holds what a credit would pay.
    held = await books.use(11, february(21), books.tokens)
    yield held
    yield await amend(client, held.usage_event_id, "13")
    yield await amend(client, second.usage_event_id, "45")
    yield await books.use(9, books.clock.now)
    yield await books.grant(500)
    yield await estimate(client, books.id)
