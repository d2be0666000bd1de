"""Credits between the contract and the domain: all fields arrive, in the right place."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from billing.api.converters import credits as convert
from billing.domain import identifiers
from billing.domain.credits import (
    INITIAL_STATUS,
    CreditApplication,
    CreditApplicationKind,
    CreditBalanceAdjustment,
    CreditBalanceAdjustmentDirection,
    CreditBalanceAdjustmentType,
    CreditSummary,
    CreditTerms,
    ExpiryOutcome,
    UsageCredit,
    UsageCreditStatus,
    UsageCreditType,
)
from billing.domain.errors import FieldInvalid
from billing.domain.identifiers import new_id, to_typeid
from billing.v1 import credit_pb2
from billing.v1 import usage_credit_pb2 as pb
from tests.factories.client import moment, timestamp

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SUBSCRIPTION, PERIOD, METER, COMPONENT = (new_id() for _ in range(4))

CREDIT = UsageCredit(
    id=new_id(),
    subscription_id=SUBSCRIPTION,
    credit_type=UsageCreditType.GRANTED_REFERRAL,
    source_reference_id="ticket-7",
    billing_period_id=PERIOD,
    usage_meter_id=METER,
    component_id=COMPONENT,
    issued_minor=900,
    currency="EUR",
    priority=-3,
    covers_charges=True,
    effective_at=BEGIN,
    expires_at=BEGIN + timedelta(days=1),
    issued_at=BEGIN + timedelta(days=2),
    initial_status=INITIAL_STATUS,
    notes="a friend of Ada",
    metadata={"campaign": "spring"},
    status=UsageCreditStatus.VOIDED,
    remaining_minor=200,
    held_minor=70,
    voided_at=BEGIN + timedelta(days=3),
    expired_at=BEGIN + timedelta(days=4),
    updated_at=BEGIN + timedelta(days=5),
)
APPLICATION = CreditApplication(
    id=new_id(),
    usage_credit_id=CREDIT.id,
    subscription_id=SUBSCRIPTION,
    kind=CreditApplicationKind.REALTIME,
    calculation_run_id=new_id(),
    billing_period_id=PERIOD,
    component_id=COMPONENT,
    usage_meter_id=METER,
    applied_minor=500,
    reversed_minor=30,
    currency="EUR",
    usage_from=BEGIN,
    usage_until=BEGIN + timedelta(days=1),
    applied_at=BEGIN + timedelta(days=2),
    ledger_transaction_id=new_id(),
)
ADJUSTMENT = CreditBalanceAdjustment(
    id=new_id(),
    usage_credit_id=CREDIT.id,
    subscription_id=SUBSCRIPTION,
    adjustment_type=CreditBalanceAdjustmentType.CLAWBACK_REFUND,
    direction=CreditBalanceAdjustmentDirection.DECREASE,
    adjusted_minor=120,
    deficit_minor=20,
    currency="EUR",
    reason="refunded",
    adjusted_by_user_id="grace",
    notes="as agreed",
    metadata={"ticket": "8"},
    source_refund_id=new_id(),
    adjustment_initiated_at=BEGIN,
    ledger_transaction_id=new_id(),
)
SUMMARY = CreditSummary(
    subscription_id=SUBSCRIPTION,
    currency="EUR",
    available_minor=100,
    upcoming_minor=10,
    held_minor=5,
    credit_balance_minor=110,
    available_count=2,
    next_expires_at=BEGIN + timedelta(days=1),
    next_expiring_minor=40,
    available_by_type={UsageCreditType.SURPLUS: 60, UsageCreditType.GRANTED_PROMO: 40},
    as_of=BEGIN,
)


def set_fields(message: Message) -> set[str]:
    """The names of the fields that hold something."""
    return {field.name for field, _ in message.ListFields()}


def all_fields(message: Message) -> set[str]:
    """The names of all fields."""
    return set(message.DESCRIPTOR.fields_by_name)


def day(stamp: Timestamp) -> int:
    """How many days after the beginning."""
    return (moment(stamp) - BEGIN).days


def test_a_credit_arrives_whole() -> None:
    message = convert.encode_usage_credit(CREDIT)
    assert set_fields(message) == all_fields(message)
    assert message.id == to_typeid("credit", CREDIT.id)
    assert message.subscription_id == to_typeid("sub", SUBSCRIPTION)
    assert message.billing_period_id == to_typeid("period", PERIOD)
    assert message.usage_meter_id == to_typeid("meter", METER)
    assert message.component_id == to_typeid("component", COMPONENT)
    assert message.credit_type == pb.USAGE_CREDIT_TYPE_GRANTED_REFERRAL
    assert message.status == pb.USAGE_CREDIT_STATUS_VOIDED
    amounts = (message.issued_amount, message.remaining_amount, message.held_amount)
    assert amounts == (900, 200, 70)
    assert (message.currency, message.priority, message.covers_charges) == ("EUR", -3, True)
    assert [
        day(message.effective_at),
        day(message.expires_at),
        day(message.issued_at),
        day(message.voided_at),
        day(message.expired_at),
        day(message.updated_at),
    ] == [0, 1, 2, 3, 4, 5]
    assert message.source_reference_id == "ticket-7"
    assert (message.initial_status, message.notes) == ("granted_active", "a friend of Ada")
    assert dict(message.metadata) == {"campaign": "spring"}


def test_what_a_credit_does_not_have_stays_unset() -> None:
    bare = replace(
        CREDIT,
        billing_period_id=None,
        usage_meter_id=None,
        component_id=None,
        expires_at=None,
        voided_at=None,
        expired_at=None,
    )
    message = convert.encode_usage_credit(bare)
    assert all_fields(message) - set_fields(message) == {
        "billing_period_id",
        "usage_meter_id",
        "component_id",
        "expires_at",
        "voided_at",
        "expired_at",
    }


def test_an_application_arrives_whole() -> None:
    message = convert.encode_credit_application(APPLICATION)
    assert set_fields(message) == all_fields(message)
    assert message.id == to_typeid("creditapp", APPLICATION.id)
    assert message.usage_credit_id == to_typeid("credit", CREDIT.id)
    assert message.calculation_run_id == to_typeid("calcrun", APPLICATION.calculation_run_id)
    assert message.ledger_transaction_id == to_typeid("txn", APPLICATION.ledger_transaction_id)
    assert message.kind == pb.CREDIT_APPLICATION_KIND_REALTIME
    assert (message.amount_applied, message.reversed_amount) == (500, 30)
    stamps = (message.usage_from, message.usage_until, message.applied_at)
    assert [day(stamp) for stamp in stamps] == [0, 1, 2]


def test_an_application_to_charges_has_no_component_and_no_meter() -> None:
    to_charges = replace(APPLICATION, component_id=None, usage_meter_id=None)
    message = convert.encode_credit_application(to_charges)
    assert (message.component_id, message.usage_meter_id) == ("", "")


def test_an_adjustment_arrives_whole() -> None:
    message = convert.encode_credit_balance_adjustment(ADJUSTMENT)
    assert set_fields(message) == all_fields(message)
    assert message.id == to_typeid("creditadj", ADJUSTMENT.id)
    assert ADJUSTMENT.source_refund_id is not None
    assert message.source_refund_id == to_typeid("refund", ADJUSTMENT.source_refund_id)
    assert message.adjustment_type == pb.CREDIT_BALANCE_ADJUSTMENT_TYPE_CLAWBACK_REFUND
    assert message.direction == pb.CREDIT_BALANCE_ADJUSTMENT_DIRECTION_DECREASE
    assert (message.amount_adjusted, message.deficit_amount) == (120, 20)
    assert (message.reason, message.notes) == ("refunded", "as agreed")


def test_a_summary_arrives_whole_its_types_in_the_contracts_order() -> None:
    message = convert.encode_credit_summary(SUMMARY)
    assert set_fields(message) == all_fields(message)
    amounts = (
        message.available_amount,
        message.upcoming_amount,
        message.held_amount,
        message.credit_balance_amount,
        message.next_expiring_amount,
    )
    assert amounts == (100, 10, 5, 110, 40)
    assert (day(message.as_of), day(message.next_expires_at)) == (0, 1)
    assert [(item.credit_type, item.amount) for item in message.available_by_type] == [
        (pb.USAGE_CREDIT_TYPE_GRANTED_PROMO, 40),
        (pb.USAGE_CREDIT_TYPE_SURPLUS, 60),
    ]


def test_what_expired_is_told_by_currency() -> None:
    message = convert.encode_expiry_outcome(ExpiryOutcome(3, 2, 1, {"USD": 5, "EUR": 7}))
    counts = (message.expired_count, message.deferred_count, message.failed_count)
    assert counts == (3, 2, 1)
    assert [(item.currency, item.amount) for item in message.expired_amounts] == [
        ("EUR", 7),
        ("USD", 5),
    ]


def test_a_grant_says_no_more_than_it_must() -> None:
    request = credit_pb2.GrantCreditRequest(
        subscription_id=to_typeid("sub", SUBSCRIPTION),
        credit_type=pb.USAGE_CREDIT_TYPE_GRANTED_PROMO,
        amount=900,
        currency="EUR",
    )
    assert convert.decode_credit_terms(request) == CreditTerms(
        SUBSCRIPTION, UsageCreditType.GRANTED_PROMO, 900, "EUR", metadata={}
    )


def test_a_grant_says_all_it_can() -> None:
    request = credit_pb2.GrantCreditRequest(
        tenant_id="acme",
        subscription_id=to_typeid("sub", SUBSCRIPTION),
        credit_type=pb.USAGE_CREDIT_TYPE_GRANTED_REFERRAL,
        amount=900,
        currency="EUR",
        priority=-3,
        effective_at=timestamp(BEGIN),
        expires_at=timestamp(BEGIN + timedelta(days=1)),
        billing_period_id=to_typeid("period", PERIOD),
        usage_meter_id=to_typeid("meter", METER),
        component_id=to_typeid("component", COMPONENT),
        covers_charges=True,
        source_reference_id="ticket-7",
        notes="a friend of Ada",
        metadata={"campaign": "spring"},
        request_id="request-1",
    )
    assert set_fields(request) == all_fields(request)
    assert convert.decode_credit_terms(request) == CreditTerms(
        subscription_id=SUBSCRIPTION,
        credit_type=UsageCreditType.GRANTED_REFERRAL,
        issued_minor=900,
        currency="EUR",
        priority=-3,
        covers_charges=True,
        effective_at=BEGIN,
        expires_at=BEGIN + timedelta(days=1),
        billing_period_id=PERIOD,
        usage_meter_id=METER,
        component_id=COMPONENT,
        source_reference_id="ticket-7",
        notes="a friend of Ada",
        metadata={"campaign": "spring"},
    )


def test_a_moment_that_is_none_is_refused_by_its_field() -> None:
    request = credit_pb2.GrantCreditRequest(
        subscription_id=identifiers.to_typeid("sub", SUBSCRIPTION),
        credit_type=pb.USAGE_CREDIT_TYPE_GRANTED_PROMO,
        expires_at=Timestamp(seconds=10**15),
    )
    with pytest.raises(FieldInvalid, match="no moment") as refused:
        convert.decode_credit_terms(request)
    assert refused.value.field == "expires_at"


@pytest.mark.parametrize("paths", [["notes"], ["metadata"], ["metadata", "notes", "notes"]])
def test_notes_and_metadata_can_be_changed(paths: list[str]) -> None:
    assert convert.decode_update_mask(FieldMask(paths=paths)) == set(paths)


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        ([], "names nothing; 'notes' and 'metadata' can be changed"),
        (["amount"], "'amount' cannot be changed, only 'notes' and 'metadata' can"),
        (["notes", "metadata.ticket"], "'metadata.ticket' cannot be changed, only"),
        (["*"], r"'\*' cannot be changed"),
        ([""], "'' cannot be changed"),
        (["Notes"], "'Notes' cannot be changed"),
        (["x" * 5000], "'x{40}' cannot be changed"),
    ],
)
def test_nothing_else_of_a_credit_can_be_changed(paths: list[str], problem: str) -> None:
    with pytest.raises(FieldInvalid, match=problem) as refused:
        convert.decode_update_mask(FieldMask(paths=paths))
    assert refused.value.field == "update_mask"
