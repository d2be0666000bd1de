"""Broken rules of the contract, told with the path of the field."""

from google.type import decimal_pb2

from billing.api.violations import violations_of
from billing.v1 import catalog_pb2, usage_pb2

SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
METER = "meter_01h455vb4pex5vsknk084sn02q"


def event(**fields: object) -> usage_pb2.UsageEventInput:
    message = usage_pb2.UsageEventInput(
        idempotency_key="key", subscription_id=SUBSCRIPTION, usage_meter_id=METER
    )
    message.quantity.value = "1"
    message.event_timestamp.seconds = 1
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def test_a_valid_message_breaks_nothing() -> None:
    assert violations_of(event()) == ()


def test_paths_are_those_of_the_proto() -> None:
    request = catalog_pb2.CreatePlanRequest(tenant_id="acme", currency="EUR")
    request.version.name = "Basic"
    request.version.interval.unit = catalog_pb2.BILLING_INTERVAL_UNIT_MONTH
    request.version.interval.count = 1
    request.version.components.add(
        usage_meter_id=METER, name="API", unit_price=decimal_pb2.Decimal(value="1")
    )
    request.version.components.add(
        usage_meter_id="meter", name="API", unit_price=decimal_pb2.Decimal(value="-1")
    )
    assert [violation.field for violation in violations_of(request)] == [
        "version.components[1].usage_meter_id",
        "version.components[1].unit_price",
    ]


def test_keys_of_a_map_are_named_and_shortened() -> None:
    message = event()
    message.properties["colour"] = "x" * 2000
    message.properties["k" * 5000] = "y"
    fields = sorted(violation.field for violation in violations_of(message))
    assert fields == ['properties["colour"]', f'properties["{"k" * 100}…"]']


def test_events_of_a_call_are_not_judged_with_the_call() -> None:
    request = usage_pb2.IngestUsageEventsRequest(
        tenant_id="acme", events=[event(idempotency_key=""), event(subscription_id="")]
    )
    assert violations_of(request) == ()
    request.tenant_id = ""
    request.ClearField("events")
    assert [violation.field for violation in violations_of(request)] == ["tenant_id", "events"]
    request.events.extend([event()] * 5001)
    assert len(violations_of(request)) == 1  # of a large message only the first


def test_a_flood_of_broken_items_costs_little() -> None:
    request = catalog_pb2.CreatePlanRequest(tenant_id="acme", currency="EUR")
    request.version.components.extend([catalog_pb2.ComponentInput()] * 100_000)
    assert len(violations_of(request)) == 1
