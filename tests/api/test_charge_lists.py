"""The charges of a subscription, and what is refused when they are listed or explained."""

from datetime import timedelta

import pytest

from billing.v1 import charge_pb2
from tests.factories.client import BillingClient
from tests.factories.clock import START, FakeClock
from tests.factories.explanations import charges_of, explain
from tests.factories.refusals import refusal_of
from tests.factories.usage import MeteredSubscription, metered_subscription

UNKNOWN = "charge_01h455vb4pex5vsknk084sn02q"


@pytest.fixture
async def billed(client: BillingClient, clock: FakeClock) -> MeteredSubscription:
    """A subscription with two billed periods."""
    metered = await metered_subscription(
        client, base_price_amount=700, started_at=START - timedelta(days=40)
    )
    await metered.send(metered.event("3", at=START - timedelta(days=35)))
    await client.run_for_subscription(metered.subscription_id)
    clock.advance(days=31)
    await client.run_for_subscription(metered.subscription_id, "single-2")
    return metered


async def test_charges_are_listed_in_the_order_of_the_invoices(billed: MeteredSubscription) -> None:
    charges = await charges_of(billed.client, billed.subscription_id)
    assert [(charge.description, charge.amount) for charge in charges] == [
        ("Monthly subscription - Pro Plan", 700),
        ("API Calls (3)", 6),
        ("Monthly subscription - Pro Plan", 700),
        ("API Calls (0)", 0),
    ]
    first, usage, *_ = charges
    assert first.charge_type == charge_pb2.CHARGE_TYPE_RECURRING
    assert usage.charge_type == charge_pb2.CHARGE_TYPE_USAGE
    assert usage.component_id.startswith("component_")
    assert first.billing_run_id == usage.billing_run_id
    assert first.calculation_run_id == usage.calculation_run_id
    assert (first.currency, first.recalculation_id, first.component_id) == ("USD", "", "")
    assert [charge.id for charge in charges] == sorted(charge.id for charge in charges)


async def test_charges_of_one_period(billed: MeteredSubscription) -> None:
    charges = await charges_of(billed.client, billed.subscription_id)
    period_id = charges[2].billing_period_id
    of_period = await charges_of(billed.client, billed.subscription_id, period_id)
    assert of_period == charges[2:]


async def test_charges_come_in_pages(billed: MeteredSubscription) -> None:
    whole = await charges_of(billed.client, billed.subscription_id)
    assert await charges_of(billed.client, billed.subscription_id, page_size=3) == whole
    assert await charges_of(billed.client, billed.subscription_id, page_size=1) == whole


async def test_charges_of_an_unknown_subscription(client: BillingClient) -> None:
    refusal = await refusal_of(charges_of(client, "sub_01h455vb4pex5vsknk084sn02q"))
    assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")


async def test_an_unknown_charge_is_not_found(client: BillingClient) -> None:
    refusal = await refusal_of(explain(client, UNKNOWN))
    assert refusal.kind == ("NOT_FOUND", "CHARGE_NOT_FOUND")
    assert UNKNOWN in refusal.message


async def test_a_charge_of_another_tenant_is_not_found(billed: MeteredSubscription) -> None:
    charge, *_ = await charges_of(billed.client, billed.subscription_id)
    stranger = BillingClient(billed.client.channel, billed.client.key)
    refusal = await refusal_of(explain(stranger, charge.id))
    assert refusal.kind == ("NOT_FOUND", "CHARGE_NOT_FOUND")


@pytest.mark.parametrize(
    "charge_id", ["", "charge_", "charge_01h455vb4pex5vsknk084sn02", "calc_" + UNKNOWN[7:]]
)
async def test_a_malformed_id_is_refused(client: BillingClient, charge_id: str) -> None:
    refusal = await refusal_of(explain(client, charge_id))
    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.fields == ["charge_id"]


async def test_pages_are_refused_that_make_no_sense(billed: MeteredSubscription) -> None:
    client = billed.client
    _, usage, *_ = await charges_of(client, billed.subscription_id)
    negative = await refusal_of(explain(client, usage.id, page_size=-1))
    assert (negative.code, negative.fields) == ("INVALID_ARGUMENT", ["page_size"])
    invented = await refusal_of(explain(client, usage.id, page_token="again"))
    assert invented.fields == ["page_token"]


async def test_a_token_belongs_to_its_charge(client: BillingClient, clock: FakeClock) -> None:
    metered = await metered_subscription(client, started_at=START - timedelta(days=40))
    at = START - timedelta(days=35)
    await metered.send(metered.event(at=at), metered.event(at=at))
    await client.run_for_subscription(metered.subscription_id)
    clock.advance(days=31)
    await client.run_for_subscription(metered.subscription_id, "single-2")
    first, second = await charges_of(client, metered.subscription_id)
    token = (await explain(client, first.id, page_size=1)).next_page_token
    assert token
    refusal = await refusal_of(explain(client, second.id, page_size=1, page_token=token))
    assert refusal.fields == ["page_token"]
