"""Documents that the invoicing service refuses for good: a person sees to them."""

import asyncio
import logging
import uuid
from typing import Any

import grpc
import grpc.aio
import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import calculation_pb2 as pb
from tests.factories.billing_runs import held_deliveries
from tests.factories.calculations import recalculate
from tests.factories.client import BillingClient, error_info
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.recalculation_audit import invoices_of_period

REQUEST_ID = "refused-1"
"""Of the recalculation whose invoice is refused."""


@pytest.fixture
async def refused(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> tuple[CreditedSubscription, str, pb.Recalculation]:
    """A billed subscription, its period, and a recalculation whose invoice is refused."""
    held = await subscribe_credited(client, clock, invoicing, holds_late_usage=True)
    await held.use(100, february(3))
    period_id = (await held.bill()).billing_period_id
    await held.use(40, february(20))
    invoicing.refused_customer_ids.add("cus-1")
    answer = await recalculate(client, held.id, period_id, request_id=REQUEST_ID)
    invoicing.refused_customer_ids.clear()
    assert not answer.recalculation.documents[0].document_id
    assert answer.recalculation.documents[0].failure
    return held, period_id, answer.recalculation


async def resolve(
    client: BillingClient, recalculation_document_id: str, **fields: Any
) -> pb.ResolveRecalculationDocumentResponse:
    """Tell that a document was made by hand."""
    return await client.calculations.ResolveRecalculationDocument(  # type: ignore[no-any-return]
        pb.ResolveRecalculationDocumentRequest(
            **{
                "tenant_id": client.tenant_id,
                "recalculation_document_id": recalculation_document_id,
                "document_id": "by-hand-1",
                "request_id": uuid.uuid4().hex,
                **fields,
            }
        )
    )


async def test_what_was_made_by_hand_counts_as_delivered(
    refused: tuple[CreditedSubscription, str, pb.Recalculation],
) -> None:
    held, period_id, recalculation = refused
    await held.use(2, february(21))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await recalculate(held.client, held.id, period_id)
    assert error_info(failure.value).reason == "RECALCULATION_NOT_DELIVERED"

    answer = await resolve(held.client, recalculation.documents[0].id)

    [document] = answer.recalculation.documents
    assert (document.document_id, document.failure) == ("by-hand-1", "")
    again = await recalculate(held.client, held.id, period_id)
    assert again.recalculation.net_change_amount == 2


async def test_a_delivered_document_cannot_be_resolved(
    refused: tuple[CreditedSubscription, str, pb.Recalculation],
) -> None:
    held, _, recalculation = refused
    document_id = recalculation.documents[0].id
    first = await resolve(held.client, document_id, request_id="resolve-1")
    assert await resolve(held.client, document_id, request_id="resolve-1") == first
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await resolve(held.client, document_id, document_id="by-hand-2")
    assert failure.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error_info(failure.value).reason == "RECALCULATION_DOCUMENT_DELIVERED"


async def test_what_was_made_by_hand_and_by_a_call_under_way_is_told(
    refused: tuple[CreditedSubscription, str, pb.Recalculation],
    invoicing: ReferenceInvoicingServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first that is recorded stands; whoever reads the log can take the other one back."""
    held, period_id, recalculation = refused
    document_id = recalculation.documents[0].id
    with held_deliveries(invoicing) as gate, caplog.at_level(logging.ERROR):
        repeat = asyncio.ensure_future(
            recalculate(held.client, held.id, period_id, request_id=REQUEST_ID)
        )
        await gate.until_waiting(1)
        await resolve(held.client, document_id)
        gate.open()
        answer = await repeat

    assert answer.recalculation.documents[0].document_id == "by-hand-1"
    made = invoices_of_period(held, period_id)[-1]
    [told] = [r.getMessage() for r in caplog.records if "was recorded meanwhile" in r.message]
    assert f"was made as {made.id}, and was recorded meanwhile" in told


async def test_an_unknown_document_is_not_found(client: BillingClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await resolve(client, "recalcdoc_01h455vb4pex5vsknk084sn02q")
    assert failure.value.code() == grpc.StatusCode.NOT_FOUND
