"""Recorded and effective time: an entry tells when it was made, its source when it happened."""

import re
from datetime import timedelta

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.timestamp_pb2 import Timestamp

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import (
    calculation_pb2,
    ledger_pb2,
    payment_pb2,
    refund_pb2,
    usage_correction_pb2,
    usage_credit_pb2,
    usage_pb2,
    write_off_pb2,
)
from tests.factories.calculations import amend, recalculate, usage_event_of
from tests.factories.client import BillingClient, moment
from tests.factories.clock import FakeClock
from tests.factories.credit_changes import adjust_credit
from tests.factories.credited_subscription import (
    USAGE_COST,
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import (
    confirm_payment,
    confirm_refund,
    create_payment,
    create_refund,
    expire_credits,
)
from tests.factories.ledger_moves import type_name

RECOGNIZED = ledger_pb2.LEDGER_ENTRY_TYPE_PAYMENT_RECOGNIZED
GRANTED = ledger_pb2.LEDGER_ENTRY_TYPE_CREDIT_GRANT_RECOGNIZED
HOUR = timedelta(hours=1)
UUID_OR_PLACEHOLDER = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}|None|[{}]")


@pytest.fixture
async def metered(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription of a plan that holds late usage."""
    return await subscribe_credited(client, clock, invoicing, holds_late_usage=True)


async def test_an_entry_tells_when_it_was_recorded_and_its_source_when_it_happened(
    metered: CreditedSubscription,
) -> None:
    """002, 3.0: "queries should join back to the source record's own timestamp"."""
    metered.reach(february(10))
    recorded_from = metered.clock.now
    happened = february(10) - HOUR
    used = await metered.use(100, happened)
    granted = await metered.grant(50, effective_at=february(5))
    payment = await create_payment(metered.client, metered.id, 500, confirm=False)
    payment = await confirm_payment(metered.client, payment.id, processed_at=happened)

    entries = await metered.entries(USAGE_COST, RECOGNIZED, GRANTED)

    assert len(entries) == 3
    for entry in entries:
        assert recorded_from < moment(entry.entry_timestamp) <= metered.clock.now
        assert moment(entry.posted_at) >= moment(entry.entry_timestamp)
    event = await usage_event_of(metered.client, used.usage_event_id)
    assert moment(event.event_timestamp) == moment(payment.processed_at) == happened
    assert moment(granted.effective_at) == february(5)
    assert moment(granted.issued_at) > recorded_from


async def test_descriptions_are_for_people(metered: CreditedSubscription) -> None:
    """002, 3.2: each entry says what it is for, without an id of the database or a placeholder."""
    await metered.grant(50, expires_at=february(15))
    used = await metered.use(30, february(10))
    metered.reach(february(16))
    await expire_credits(metered.client, metered.id)
    payment = await create_payment(metered.client, metered.id, 500)
    credit = await metered.credit_of(payment)
    await adjust_credit(metered.client, credit.id, -20)
    refund = await create_refund(metered.client, payment.id, 100)
    await confirm_refund(metered.client, refund.id)
    await metered.use(70, february(20))
    billed = await metered.bill()
    await amend(metered.client, used.usage_event_id, "10")
    await recalculate(metered.client, metered.id, billed.billing_period_id)

    described = {type_name(e.entry_type): e.description for e in await metered.entries()}

    assert {
        "usage_cost",
        "credit_grant_recognized",
        "credit_grant_expired",
        "credit_applied_to_usage",
        "credit_balance_adjusted",
        "payment_recognized",
        "payment_refunded",
        "billing_adjustment",
    } <= set(described)
    for entry_type, description in described.items():
        assert description.strip(), entry_type
        assert not UUID_OR_PLACEHOLDER.search(description), (entry_type, description)


@pytest.mark.parametrize(
    ("message", "recorded", "effective"),
    [
        (ledger_pb2.LedgerEntry, {"entry_timestamp", "posted_at", "discarded_at"}, set()),
        (ledger_pb2.LedgerTransaction, {"created_at"}, set()),
        (usage_pb2.UsageEvent, {"received_at"}, {"event_timestamp"}),
        (payment_pb2.Payment, {"created_at"}, {"processed_at"}),
        (refund_pb2.Refund, {"created_at"}, {"refund_processed_at"}),
        (usage_credit_pb2.UsageCredit, {"issued_at"}, {"effective_at", "expires_at"}),
        (usage_credit_pb2.CreditApplication, {"applied_at"}, {"usage_from", "usage_until"}),
        (usage_correction_pb2.UsageEventCorrection, {"corrected_at"}, set()),
        (calculation_pb2.Calculation, {"calculated_at"}, set()),
        (write_off_pb2.WriteOff, {"created_at", "updated_at"}, set()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_contract_tells_both_kinds_of_time(
    message: type, recorded: set[str], effective: set[str]
) -> None:
    """Moments are Timestamps, and both kinds of time have names of their own."""
    descriptor: Descriptor = message.DESCRIPTOR  # type: ignore[attr-defined]
    times = {
        field.name
        for field in descriptor.fields
        if field.message_type is not None
        and field.message_type.full_name == Timestamp.DESCRIPTOR.full_name
    }
    assert recorded | effective <= times
    assert not recorded & effective
