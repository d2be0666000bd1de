"""Whatever writes can be asked for again: the contract has a key for it, and the answer is kept."""

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import (
    billing_run_pb2,
    calculation_pb2,
    catalog_pb2,
    credit_pb2,
    ledger_pb2,
    payment_pb2,
    subscription_pb2,
    usage_pb2,
)
from buf.validate import validate_pb2
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
from tests.factories.refusals import refusal_of

FILES = (
    billing_run_pb2,
    calculation_pb2,
    catalog_pb2,
    credit_pb2,
    ledger_pb2,
    payment_pb2,
    subscription_pb2,
    usage_pb2,
)
SAFE_WITHOUT_A_KEY = {
    "UsageService.IngestUsageEvents": "each event has its idempotency_key",
    "CreditService.ExpireCredits": "what has expired does not expire again",
}
NO_MONEY_MOVES = {
    "CreateUsageMeter",
    "CreatePlan",
    "UpdatePlan",
    "CreateSubscription",
    "PauseSubscription",
    "ResumeSubscription",
    "UpdateCredit",
    "FailPayment",
}
READS = MethodOptions.NO_SIDE_EFFECTS


def writing_methods() -> list[MethodDescriptor]:
    """Every RPC that is not declared to read only."""
    return [
        method
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
        if method.GetOptions().idempotency_level != READS
    ]


def test_every_rpc_that_writes_takes_a_request_id() -> None:
    """002, 3.0: "should ideally support an idempotency key provided by the client"."""
    without = {
        f"{method.containing_service.name}.{method.name}"
        for method in writing_methods()
        if "request_id" not in method.input_type.fields_by_name
    }
    assert without == set(SAFE_WITHOUT_A_KEY)
    assert "idempotency_key" in usage_pb2.UsageEventInput.DESCRIPTOR.fields_by_name


@pytest.mark.parametrize(
    "method",
    [m for m in writing_methods() if "request_id" in m.input_type.fields_by_name],
    ids=lambda method: method.name,
)
def test_where_money_moves_the_request_id_is_required(method: MethodDescriptor) -> None:
    field = method.input_type.fields_by_name["request_id"]
    rules = field.GetOptions().Extensions[validate_pb2.field]
    assert (rules.string.min_len > 0) == (method.name not in NO_MONEY_MOVES)


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription for 2000 a month whose plan holds late usage."""
    return await subscribe_credited(
        client, clock, invoicing, base_price_amount=2000, holds_late_usage=True
    )


async def test_what_corrects_and_gives_up_is_answered_again_and_written_once(
    metered: CreditedSubscription,
) -> None:
    """Corrections, estimates, recalculations, write-offs and their recoveries."""
    client = metered.client
    await metered.grant(60)
    first = await metered.use(100, february(10))
    second = await metered.use(30, february(10))
    amended = [await amend(client, first.usage_event_id, "90", request_id="a") for _ in range(2)]
    voided = [await void_event(client, second.usage_event_id, request_id="v") for _ in range(2)]
    estimated = [await estimate(client, metered.id, request_id="e") for _ in range(2)]
    billed = await metered.bill()
    period_id = billed.billing_period_id
    await metered.use(40, february(20))
    new = [await recalculate(client, metered.id, period_id, request_id="r") for _ in range(2)]
    given_up = [await write_off(client, metered.id, period_id, request_id="w") for _ in range(2)]
    entries = await metered.entries()
    owed_again = [await recover(client, given_up[0].id, request_id="b") for _ in range(2)]

    for told, again in (amended, voided, estimated, given_up, owed_again):
        assert told == again
    assert new[0].recalculation.id == new[1].recalculation.id != ""
    assert len(await metered.entries()) == len(entries) + 1
    assert len(metered.invoices()) == 2
    assert (await client.trial_balance()).difference_amount == 0


async def test_a_request_id_stands_for_one_content(metered: CreditedSubscription) -> None:
    used = await metered.use(100, february(10))
    await amend(metered.client, used.usage_event_id, "90", request_id="once")
    entries = await metered.entries()
    other = await refusal_of(amend(metered.client, used.usage_event_id, "80", request_id="once"))
    assert other.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert await metered.entries() == entries
