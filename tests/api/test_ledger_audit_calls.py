"""AuditLedger call by call: pages, one subscription, who may, and an invoicing service away."""

import grpc
import grpc.aio
import pytest

from billing.bootstrap import RunningService
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from invoicing.v1 import invoicing_pb2, invoicing_pb2_grpc
from tests.factories.audited_books import damage, rich_books
from tests.factories.book_audit import (
    assert_books_agree,
    audit_page,
    audit_pages,
    findings_of,
    word,
)
from tests.factories.book_damages import CASES
from tests.factories.client import BillingClient, error_info
from tests.factories.clock import FakeClock
from tests.factories.usage import metered_subscription

CLOSING = CASES["a closing snapshot"].damage
OF_THE_TENANT = {"trial_balance", "pending_results"}


async def subscriptions_of(client: BillingClient, count: int) -> list[str]:
    """Subscribe so often; return the ids in their order."""
    return sorted(
        [
            (await metered_subscription(client, code=f"meter_{number}")).subscription_id
            for number in range(count)
        ]
    )


async def refusal(client: BillingClient, **fields: object) -> grpc.aio.AioRpcError:
    """Return how a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await audit_page(client, **fields)
    return refused.value


async def test_pages_look_at_every_subscription_once(client: BillingClient) -> None:
    await subscriptions_of(client, 5)
    pages = await audit_pages(client, page_size=2)
    assert [page.subscription_count for page in pages] == [2, 2, 1]
    made = [{word(result.check) for result in page.checks} for page in pages]
    assert made[0] - made[1] == OF_THE_TENANT
    assert made[1] == made[2]


async def test_a_tenant_without_subscriptions_agrees(client: BillingClient) -> None:
    await assert_books_agree(client)
    (page,) = await audit_pages(client)
    assert page.subscription_count == 0


async def test_a_page_holds_less_where_there_is_much_usage(
    client: BillingClient, clock: FakeClock, database_url: str
) -> None:
    first, second = [
        await metered_subscription(client, code=f"meter_{number}") for number in range(2)
    ]
    for metered in (first, second):
        await metered.send(metered.event())
    many = CASES["the event count of an aggregate"].damage
    for low in (0, 1):
        await damage(
            database_url,
            client,
            many._replace(
                row=f"t.event_count = 1 AND {low} = {low}", change="event_count = 150000"
            ),
        )

    pages = await audit_pages(client)

    assert [page.subscription_count for page in pages] == [1, 1]


async def test_findings_name_the_page_s_subscriptions_alone(
    client: BillingClient, clock: FakeClock, database_url: str
) -> None:
    customer = await rich_books(client, clock)
    others = await subscriptions_of(client, 2)
    await damage(database_url, client, CLOSING)

    by_page = [
        {row.subscription_id for row in page.findings}
        for page in await audit_pages(client, page_size=1)
    ]

    assert by_page == [{customer.subscription_id}, set(), set()]
    assert await findings_of(client, subscription_id=others[0]) == []
    found = await findings_of(client, subscription_id=customer.subscription_id)
    assert {each.row.subscription_id for each in found} == {customer.subscription_id}


async def test_one_subscription_says_nothing_of_the_tenant(client: BillingClient) -> None:
    (subscription_id,) = await subscriptions_of(client, 1)
    page = await audit_page(client, subscription_id=subscription_id)
    assert not OF_THE_TENANT & {word(result.check) for result in page.checks}
    assert page.next_page_token == ""


async def test_an_unknown_subscription_is_not_found(client: BillingClient) -> None:
    (stranger,) = await subscriptions_of(client.for_tenant(client.tenant_id + "-2"), 1)
    error = await refusal(client, subscription_id=stranger)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert stranger in (error.details() or "")


@pytest.mark.parametrize(
    "fields",
    [
        {"page_size": -1},
        {"page_token": "made up"},
        {"subscription_id": "sub_1"},
    ],
    ids=lambda fields: next(iter(fields)),
)
async def test_nonsense_is_refused(client: BillingClient, fields: dict[str, object]) -> None:
    error = await refusal(client, **fields)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_token_is_for_the_same_audit(client: BillingClient) -> None:
    await subscriptions_of(client, 2)
    token = (await audit_page(client, page_size=1)).next_page_token
    error = await refusal(client, page_size=1, page_token=token, skip_invoices=True)
    assert error_info(error).reason == "PAGE_TOKEN_INVALID"


async def test_reading_the_ledger_is_not_auditing_it(client: BillingClient) -> None:
    error = await refusal(client.with_capabilities("billing.ledger:read"))
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    await audit_page(client.with_capabilities("billing.ledger:audit"))


async def test_test_data_is_audited_by_itself(
    client: BillingClient, clock: FakeClock, database_url: str
) -> None:
    await rich_books(client, clock)
    await damage(database_url, client, CLOSING)
    await assert_books_agree(client.in_test_mode())


async def test_an_invoicing_service_that_is_away_is_no_finding(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    await rich_books(client, clock)
    invoicing.error_rate = 1.0
    (page,) = await audit_pages(client)
    assert not page.findings
    assert (page.invoice_count, page.unchecked_invoice_count) == (0, 1)
    assert "UNAVAILABLE" in page.unchecked_invoice_reason

    invoicing.error_rate = 0.0
    (page,) = await audit_pages(client)
    assert (page.invoice_count, page.unchecked_invoice_count) == (1, 0)
    assert page.unchecked_invoice_reason == ""


async def test_without_invoices_nobody_is_asked(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    await rich_books(client, clock)
    invoicing.error_rate = 1.0
    (page,) = await audit_pages(client, skip_invoices=True)
    assert (page.invoice_count, page.unchecked_invoice_count) == (0, 0)
    assert "invoices" not in {word(result.check) for result in page.checks}


async def test_an_invoice_that_was_voided_is_found(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    customer = await rich_books(client, clock)
    (invoice,) = customer.invoices(invoicing)
    async with grpc.aio.insecure_channel(
        invoicing.address, options=[("grpc.enable_http_proxy", 0)]
    ) as channel:
        await invoicing_pb2_grpc.InvoicingServiceStub(channel).VoidInvoice(
            invoicing_pb2.VoidInvoiceRequest(
                idempotency_key=f"void-{invoice.id}",
                tenant_id=client.tenant_id,
                invoice_id=invoice.id,
                reason="by hand",
            )
        )

    (found,) = await findings_of(client)

    assert found.check == "invoices"
    assert found.message == (
        f"invoice {invoice.id} was voided by the invoicing service: 933 expected"
    )
    assert found.row.billing_period_id == customer.period_id


async def test_the_last_call_tells_what_all_calls_found(
    client: BillingClient, clock: FakeClock, service: RunningService, database_url: str
) -> None:
    def told(name: str, **labels: str) -> float | None:
        scope = {"tenant_id": client.tenant_id, "livemode": "true"}
        return service.metrics.registry.get_sample_value(name, scope | labels)

    await rich_books(client, clock)
    await subscriptions_of(client, 2)
    await damage(database_url, client, CLOSING)
    first = await audit_page(client, page_size=1)
    assert first.findings
    assert told("billing_audit_last_ended_timestamp_seconds") is None

    await audit_pages(client, page_size=1)
    assert told("billing_audit_findings", check="closing_receivables") == 1
    assert told("billing_audit_findings", check="trial_balance") == 0
    assert told("billing_audit_last_ended_timestamp_seconds") is not None
