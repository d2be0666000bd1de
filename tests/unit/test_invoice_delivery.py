"""Delivery of invoices: a failure is one invoice's, and a silent service is not asked on and on."""

from dataclasses import replace
from uuid import UUID

from billing.domain.errors import (
    BillingError,
    InvoiceNotDelivered,
    InvoicingUnavailable,
)
from billing.domain.invoices import InvoiceRequest
from billing.services.invoice_delivery import InvoiceDelivery
from tests.factories.invoicing import INVOICE_REQUEST

RUN, LATER_RUN = UUID(int=1), UUID(int=2)


class PlayedInvoicing:
    """Answers by customer, and counts the calls."""

    def __init__(self, failures: dict[str, Exception]) -> None:
        self.failures = failures
        self.call_count = 0

    async def create_invoice(self, request: InvoiceRequest) -> str:
        """Fail as told, or return an id."""
        self.call_count += 1
        if request.customer_id in self.failures:
            raise self.failures[request.customer_id]
        return f"inv-{request.customer_id}"


def requests_of(customer_id: str, count: int) -> list[InvoiceRequest]:
    """Requests for one customer."""
    return [replace(INVOICE_REQUEST, customer_id=customer_id) for _ in range(count)]


def unavailable(*, answered: bool) -> InvoicingUnavailable:
    """What the client raises after its attempts."""
    return InvoicingUnavailable(detail="X: y", attempts_count=4, answered=answered)


def delivered_count(answers: list[str | BillingError]) -> int:
    """How many invoices there are."""
    return sum(isinstance(answer, str) for answer in answers)


async def test_answers_come_in_the_order_of_the_requests() -> None:
    invoicing = PlayedInvoicing({"bad": unavailable(answered=True)})
    requests = [*requests_of("a", 1), *requests_of("bad", 1), *requests_of("b", 1)]
    first, second, third = await InvoiceDelivery(invoicing, concurrency=2).request_invoices(
        RUN, requests
    )
    assert (first, third) == ("inv-a", "inv-b")
    assert isinstance(second, InvoicingUnavailable)


async def test_a_failure_that_nobody_foresaw_is_one_invoices() -> None:
    invoicing = PlayedInvoicing({"bad": RuntimeError("x")})
    requests = [*requests_of("a", 2), *requests_of("bad", 1)]
    answers = await InvoiceDelivery(invoicing, concurrency=2).request_invoices(RUN, requests)
    assert delivered_count(answers) == 2
    assert isinstance(answers[2], InvoiceNotDelivered)


async def test_a_silent_service_is_given_up_and_asked_again_by_the_next_run() -> None:
    """The rest of the batch fails at once, later batches try one, another run begins anew."""
    invoicing = PlayedInvoicing({"a": unavailable(answered=False)})
    delivery = InvoiceDelivery(invoicing, concurrency=4)
    answers = await delivery.request_invoices(RUN, requests_of("a", 500))
    assert delivered_count(answers) == 0
    assert 32 <= invoicing.call_count < 50

    invoicing.call_count = 0
    await delivery.request_invoices(RUN, requests_of("a", 500))
    assert invoicing.call_count == 1

    invoicing.failures.clear()
    answers = await delivery.request_invoices(RUN, requests_of("a", 500))
    assert delivered_count(answers) == 500
    answers = await delivery.request_invoices(LATER_RUN, requests_of("a", 500))
    assert delivered_count(answers) == 500


async def test_invoices_that_the_service_fails_never_starve_the_others() -> None:
    """An answer about one invoice, however bad, is an answer."""
    invoicing = PlayedInvoicing({"bad": unavailable(answered=True)})
    requests = [*requests_of("bad", 300), *requests_of("good", 10)]
    answers = await InvoiceDelivery(invoicing, concurrency=32).request_invoices(RUN, requests)
    assert delivered_count(answers) == 10
