"""Payments and refunds between the contract and the domain: all fields arrive."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from billing.api.converters import payments as convert
from billing.domain.identifiers import new_id, to_typeid
from billing.domain.payments import (
    Payment,
    PaymentPurpose,
    PaymentStatus,
    PaymentTerms,
    Refund,
    RefundCreditPolicy,
    RefundStatus,
    RefundTerms,
)
from billing.v1 import payment_pb2 as pb
from billing.v1 import refund_pb2
from tests.factories.client import moment

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SUBSCRIPTION, PERIOD, CREDIT = (new_id() for _ in range(3))

PAYMENT = Payment(
    id=new_id(),
    subscription_id=SUBSCRIPTION,
    purpose=PaymentPurpose.PERIOD_SETTLEMENT,
    amount_minor=900,
    currency="EUR",
    status=PaymentStatus.SUCCEEDED,
    billing_period_id=PERIOD,
    invoice_id="inv-1",
    payment_method_details={"brand": "visa"},
    processor_transaction_id="ch-1",
    processed_at=BEGIN,
    failure_reason="the card was declined",
    usage_credit_id=CREDIT,
    settled_minor=500,
    refunded_minor=70,
    metadata={"ticket": "8"},
    created_at=BEGIN + timedelta(days=1),
    updated_at=BEGIN + timedelta(days=2),
)
REFUND = Refund(
    id=new_id(),
    payment_id=PAYMENT.id,
    subscription_id=SUBSCRIPTION,
    amount_minor=100,
    currency="EUR",
    reason="customer_request",
    status=RefundStatus.SUCCEEDED,
    credit_policy=RefundCreditPolicy.REVERT_ALL,
    clawed_back_minor=50,
    reversed_minor=30,
    deficit_minor=15,
    refund_processed_at=BEGIN,
    gateway_refund_id="re-1",
    failure_reason="the account is closed",
    notes="as agreed",
    initiated_by_user_id="grace",
    ledger_transaction_id=new_id(),
    created_at=BEGIN + timedelta(days=1),
    updated_at=BEGIN + timedelta(days=2),
)


def set_fields(message: Message) -> set[str]:
    """The names of the fields that hold something."""
    return {field.name for field, _ in message.ListFields()}


def all_fields(message: Message) -> set[str]:
    """The names of all fields."""
    return set(message.DESCRIPTOR.fields_by_name)


def test_a_payment_arrives_whole() -> None:
    message = convert.encode_payment(PAYMENT)
    assert set_fields(message) == all_fields(message)
    assert message.id == to_typeid("payment", PAYMENT.id)
    assert message.subscription_id == to_typeid("sub", SUBSCRIPTION)
    assert message.billing_period_id == to_typeid("period", PERIOD)
    assert message.usage_credit_id == to_typeid("credit", CREDIT)
    assert message.purpose == pb.PAYMENT_PURPOSE_PERIOD_SETTLEMENT
    assert message.status == pb.PAYMENT_STATUS_SUCCEEDED
    assert (message.amount, message.settled_amount, message.refunded_amount) == (900, 500, 70)
    assert (message.invoice_id, message.processor_transaction_id) == ("inv-1", "ch-1")
    assert dict(message.payment_method_details) == {"brand": "visa"}
    assert dict(message.metadata) == {"ticket": "8"}
    stamps = (message.processed_at, message.created_at, message.updated_at)
    assert [(moment(stamp) - BEGIN).days for stamp in stamps] == [0, 1, 2]


def test_a_pending_top_up_has_neither_period_nor_credit_nor_date() -> None:
    pending = replace(PAYMENT, billing_period_id=None, usage_credit_id=None, processed_at=None)
    message = convert.encode_payment(pending)
    unset = {"billing_period_id", "usage_credit_id", "processed_at"}
    assert all_fields(message) - set_fields(message) == unset


def test_a_refund_arrives_whole() -> None:
    message = convert.encode_refund(REFUND)
    assert set_fields(message) == all_fields(message)
    assert message.id == to_typeid("refund", REFUND.id)
    assert message.payment_id == to_typeid("payment", PAYMENT.id)
    assert message.ledger_transaction_id == to_typeid("txn", REFUND.ledger_transaction_id)
    assert message.status == refund_pb2.REFUND_STATUS_SUCCEEDED
    assert message.credit_policy == refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL
    assert message.amount == 100
    assert (
        message.clawed_back_amount,
        message.reversed_amount,
        message.deficit_amount,
        message.absorbed_amount,
    ) == (50, 30, 15, 5)
    stamps = (message.refund_processed_at, message.created_at, message.updated_at)
    assert [(moment(stamp) - BEGIN).days for stamp in stamps] == [0, 1, 2]


def test_a_payment_is_begun_as_told() -> None:
    request = pb.CreatePaymentRequest(
        tenant_id="acme",
        subscription_id=to_typeid("sub", SUBSCRIPTION),
        purpose=pb.PAYMENT_PURPOSE_PERIOD_SETTLEMENT,
        amount=900,
        currency="EUR",
        billing_period_id=to_typeid("period", PERIOD),
        invoice_id="inv-1",
        payment_method_details={"brand": "visa"},
        metadata={"ticket": "8"},
        request_id="request-1",
    )
    assert set_fields(request) == all_fields(request)
    assert convert.decode_payment_terms(request) == PaymentTerms(
        subscription_id=SUBSCRIPTION,
        purpose=PaymentPurpose.PERIOD_SETTLEMENT,
        amount_minor=900,
        currency="EUR",
        billing_period_id=PERIOD,
        invoice_id="inv-1",
        payment_method_details={"brand": "visa"},
        metadata={"ticket": "8"},
    )


def test_a_top_up_names_no_period() -> None:
    request = pb.CreatePaymentRequest(
        subscription_id=to_typeid("sub", SUBSCRIPTION),
        purpose=pb.PAYMENT_PURPOSE_TOP_UP,
        amount=900,
        currency="EUR",
    )
    assert convert.decode_payment_terms(request) == PaymentTerms(
        SUBSCRIPTION, PaymentPurpose.TOP_UP, 900, "EUR", payment_method_details={}, metadata={}
    )


@pytest.mark.parametrize(
    ("told", "policy"),
    [
        (refund_pb2.REFUND_CREDIT_POLICY_UNSPECIFIED, RefundCreditPolicy.REVERT_UNUSED),
        (refund_pb2.REFUND_CREDIT_POLICY_REVERT_UNUSED, RefundCreditPolicy.REVERT_UNUSED),
        (refund_pb2.REFUND_CREDIT_POLICY_REVERT_ALL, RefundCreditPolicy.REVERT_ALL),
        (refund_pb2.REFUND_CREDIT_POLICY_KEEP, RefundCreditPolicy.KEEP),
    ],
)
def test_a_refund_is_begun_as_told(
    told: refund_pb2.RefundCreditPolicy.ValueType, policy: RefundCreditPolicy
) -> None:
    request = refund_pb2.CreateRefundRequest(
        payment_id=to_typeid("payment", PAYMENT.id),
        amount=100,
        currency="EUR",
        credit_policy=told,
        reason="customer_request",
        notes="as agreed",
        initiated_by_user_id="grace",
    )
    assert convert.decode_refund_terms(request) == RefundTerms(
        payment_id=PAYMENT.id,
        amount_minor=100,
        currency="EUR",
        credit_policy=policy,
        reason="customer_request",
        notes="as agreed",
        initiated_by_user_id="grace",
    )
