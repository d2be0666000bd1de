"""Grants that cannot be: the code, the reason and the figures, and nothing is written."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import usage_credit_pb2 as pb
from tests.factories.billing_runs import APRIL
from tests.factories.client import BillingClient, moment
from tests.factories.clock import START, FakeClock
from tests.factories.credits import credit, grant_credit
from tests.factories.customers import API_CALLS, STORAGE, Customer, new_customer
from tests.factories.ledger_moves import nothing_written
from tests.factories.refusals import Refusal, refusal_of

UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"
UNKNOWN_METER = "meter_01h455vb4pex5vsknk084sn02q"
UNKNOWN_COMPONENT = "component_01h455vb4pex5vsknk084sn02q"
DAY = timedelta(days=1)

Terms = Callable[[Customer, Customer], dict[str, Any]]


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription that has granted and used something."""
    customer = await new_customer(client, clock)
    await grant_credit(client, customer.subscription_id, 500)
    await customer.use(10)
    return customer


@pytest.fixture
async def other(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription of the same tenant with a plan of its own."""
    return await new_customer(client, clock)


async def refused_grant(customer: Customer, other: Customer, **terms: Any) -> Refusal:
    """How a grant is refused; fails unless it leaves both subscriptions as they were."""
    ids = customer.subscription_id, other.subscription_id
    async with nothing_written(customer.client, *ids):
        return await refusal_of(
            grant_credit(customer.client, customer.subscription_id, **{"amount": 700, **terms})
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", 0),
        ("amount", -1),
        ("amount", 1_000_000_000_000_001),
        ("currency", ""),
        ("currency", "usd"),
        ("credit_type", pb.USAGE_CREDIT_TYPE_UNSPECIFIED),
        ("credit_type", pb.USAGE_CREDIT_TYPE_PAYMENT_TOP_UP),
        ("credit_type", pb.USAGE_CREDIT_TYPE_PAYMENT_PERIOD_SETTLEMENT),
        ("credit_type", pb.USAGE_CREDIT_TYPE_SURPLUS),
        ("credit_type", 99),
        ("priority", 1001),
        ("priority", -1001),
        ("billing_period_id", "march"),
        ("usage_meter_id", UNKNOWN_COMPONENT),
        ("component_id", UNKNOWN_METER),
        ("source_reference_id", "x" * 201),
        ("notes", "x" * 2001),
        ("metadata", {str(number): "" for number in range(51)}),
        ("request_id", ""),
        ("request_id", "x" * 129),
    ],
)
async def test_a_field_that_breaks_its_rule_is_named(
    customer: Customer, other: Customer, field: str, value: Any
) -> None:
    refusal = await refused_grant(customer, other, **{field: value})
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == [field]


async def test_another_currency_than_the_subscriptions_is_refused(
    customer: Customer, other: Customer
) -> None:
    refusal = await refused_grant(customer, other, currency="EUR")
    assert refusal.kind == ("INVALID_ARGUMENT", "CURRENCY_MISMATCH")
    assert refusal.fields == ["currency"]
    assert refusal.metadata["currency"] == "EUR"
    assert refusal.metadata["expected"] == "USD"
    assert customer.subscription_id in refusal.message


@pytest.mark.parametrize(
    "terms",
    [
        {"expires_at": START - DAY},
        {"expires_at": START},
        {"expires_at": START - DAY, "effective_at": START - 2 * DAY},
        {"expires_at": START + DAY, "effective_at": START + DAY},
        {"expires_at": START + DAY, "effective_at": START + 2 * DAY},
    ],
    ids=["past", "now", "past after its effect", "at its effect", "before its effect"],
)
async def test_an_expiry_that_leaves_no_time_is_refused(
    customer: Customer, other: Customer, terms: dict[str, Any]
) -> None:
    refusal = await refused_grant(customer, other, **terms)
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["expires_at"]
    assert terms["expires_at"].isoformat() in refusal.message


@pytest.mark.parametrize("field", ["effective_at", "expires_at"])
@pytest.mark.parametrize(
    "moment_told",
    [
        Timestamp(seconds=-62_135_596_800),
        Timestamp(seconds=253_402_300_799, nanos=999_999_999),
        Timestamp(seconds=253_402_300_800),
        Timestamp(nanos=1_000_000_000),
    ],
    ids=["the first", "the last", "after the last", "malformed"],
)
async def test_a_moment_that_the_database_cannot_compare_is_refused(
    customer: Customer, other: Customer, field: str, moment_told: Timestamp
) -> None:
    refusal = await refused_grant(customer, other, **{field: moment_told})
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == [field]


@pytest.mark.parametrize(
    ("field", "terms"),
    [
        ("billing_period_id", lambda _, other: {"billing_period_id": other.period_id}),
        ("usage_meter_id", lambda _, other: {"usage_meter_id": other.meter_ids[API_CALLS]}),
        ("component_id", lambda _, other: {"component_id": other.component_ids[API_CALLS]}),
        ("billing_period_id", lambda *_: {"billing_period_id": UNKNOWN_PERIOD}),
        ("usage_meter_id", lambda *_: {"usage_meter_id": UNKNOWN_METER}),
        ("component_id", lambda *_: {"component_id": UNKNOWN_COMPONENT}),
        (
            "component_id",
            lambda own, other: {
                "usage_meter_id": own.meter_ids[API_CALLS],
                "component_id": other.component_ids[API_CALLS],
            },
        ),
    ],
    ids=[
        "period of another",
        "meter of another",
        "component of another",
        "unknown period",
        "unknown meter",
        "unknown component",
        "own meter and component of another",
    ],
)
async def test_a_scope_of_another_subscription_is_refused(
    customer: Customer, other: Customer, field: str, terms: Terms
) -> None:
    refusal = await refused_grant(customer, other, **terms(customer, other))
    assert refusal.kind == ("INVALID_ARGUMENT", "CREDIT_SCOPE_INVALID")
    assert refusal.fields == [field]
    assert customer.subscription_id in refusal.message


async def test_a_meter_that_the_plan_does_not_price_is_refused(
    customer: Customer, other: Customer
) -> None:
    unpriced = await customer.client.create_meter("unpriced")
    refusal = await refused_grant(customer, other, usage_meter_id=unpriced)
    assert refusal.kind == ("INVALID_ARGUMENT", "CREDIT_SCOPE_INVALID")


@pytest.mark.parametrize(
    "scope",
    [
        lambda own, _: {"usage_meter_id": own.meter_ids[API_CALLS]},
        lambda own, _: {"component_id": own.component_ids[API_CALLS]},
    ],
    ids=["meter", "component"],
)
async def test_a_credit_for_some_usage_alone_cannot_cover_charges(
    customer: Customer, other: Customer, scope: Terms
) -> None:
    terms = scope(customer, other)
    refusal = await refused_grant(customer, other, covers_charges=True, **terms)
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["covers_charges"]
    await grant_credit(customer.client, customer.subscription_id, 700, **terms)


async def test_a_component_of_another_meter_can_pay_nothing(
    customer: Customer, other: Customer
) -> None:
    refusal = await refused_grant(
        customer,
        other,
        usage_meter_id=customer.meter_ids[STORAGE],
        component_id=customer.component_ids[API_CALLS],
    )
    assert refusal.kind == ("INVALID_ARGUMENT", "CREDIT_SCOPE_INVALID")
    assert refusal.fields == ["component_id"]
    await grant_credit(
        customer.client,
        customer.subscription_id,
        700,
        usage_meter_id=customer.meter_ids[API_CALLS],
        component_id=customer.component_ids[API_CALLS],
    )


@pytest.mark.parametrize("effective_at", [APRIL, None], ids=["told", "now"])
async def test_a_credit_for_a_period_must_be_in_effect_within_it(
    customer: Customer, other: Customer, effective_at: datetime | None
) -> None:
    if effective_at is None:
        customer.clock.set(APRIL)
    terms = {"effective_at": effective_at} if effective_at else {}
    refusal = await refused_grant(customer, other, billing_period_id=customer.period_id, **terms)
    assert refusal.kind == ("INVALID_ARGUMENT", "CREDIT_SCOPE_INVALID")
    assert refusal.fields == ["billing_period_id"]
    await grant_credit(
        customer.client,
        customer.subscription_id,
        700,
        billing_period_id=customer.period_id,
        effective_at=APRIL - DAY,
    )


@pytest.mark.parametrize("status", ["billed", "invoiced"])
async def test_a_billed_period_can_have_no_more_credits(
    customer: Customer, other: Customer, invoicing: ReferenceInvoicingServer, status: str
) -> None:
    invoicing.error_rate = 1.0 if status == "billed" else 0.0
    await customer.bill()
    refusal = await refused_grant(customer, other, billing_period_id=customer.period_id)
    assert refusal.kind == ("FAILED_PRECONDITION", "BILLING_PERIOD_CLOSED")
    assert refusal.metadata["billing_period_id"] == customer.period_id
    assert refusal.metadata["status"] == status
    current = await customer.current_period_id()
    granted = await grant_credit(
        customer.client, customer.subscription_id, 700, billing_period_id=current
    )
    assert granted.billing_period_id == current


async def test_a_credit_for_nearly_all_of_time_pays_and_expires_like_others(
    customer: Customer,
) -> None:
    microsecond = timedelta(microseconds=1)
    granted = await grant_credit(
        customer.client,
        customer.subscription_id,
        700,
        effective_at=datetime.min.replace(tzinfo=UTC) + microsecond,
        expires_at=datetime.max.replace(tzinfo=UTC) - microsecond,
    )
    run = await customer.bill()
    assert [result.error_reason for result in run.results] == [""]
    after = await credit(customer.client, granted.id)
    assert after.remaining_amount == 680


async def test_a_cancelled_subscription_gets_no_grants(customer: Customer, other: Customer) -> None:
    await customer.client.cancel(customer.subscription_id, immediately=True)
    cancelled = await customer.client.get_subscription(customer.subscription_id)
    refusal = await refused_grant(customer, other)
    assert refusal.kind == ("FAILED_PRECONDITION", "SUBSCRIPTION_ALREADY_CANCELLED")
    assert refusal.metadata["subscription_id"] == customer.subscription_id
    assert refusal.metadata["cancelled_at"] == str(moment(cancelled.cancelled_at))


async def test_an_unknown_subscription_is_not_found(customer: Customer) -> None:
    for caller, subscription_id in (
        (customer.client, UNKNOWN_SUBSCRIPTION),
        (customer.client.in_test_mode(), customer.subscription_id),
    ):
        async with nothing_written(customer.client, customer.subscription_id):
            refusal = await refusal_of(grant_credit(caller, subscription_id, 700))
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
