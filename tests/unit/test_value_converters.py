"""Values that every noun has: the contract's enums and the domain's say the same."""

from enum import StrEnum
from typing import Any

import pytest

from billing.api.converters import credits, ledger, payments, subscriptions
from billing.api.converters.values import EnumConverter, decode_optional_time
from billing.domain.subscriptions import CreditApplicationMode
from billing.v1 import (
    ledger_pb2,
    payment_pb2,
    refund_pb2,
    subscription_pb2,
    usage_credit_pb2,
)
from tests.factories.client import timestamp
from tests.factories.clock import START

CONVERTERS: list[tuple[EnumConverter[Any], Any]] = [
    (credits.credit_type, usage_credit_pb2.UsageCreditType),
    (credits.status, usage_credit_pb2.UsageCreditStatus),
    (credits.application_kind, usage_credit_pb2.CreditApplicationKind),
    (credits.adjustment_type, usage_credit_pb2.CreditBalanceAdjustmentType),
    (credits.adjustment_direction, usage_credit_pb2.CreditBalanceAdjustmentDirection),
    (payments.purpose, payment_pb2.PaymentPurpose),
    (payments.status, payment_pb2.PaymentStatus),
    (payments.refund_status, refund_pb2.RefundStatus),
    (payments.credit_policy, refund_pb2.RefundCreditPolicy),
    (subscriptions.credit_application, subscription_pb2.CreditApplicationMode),
    (ledger.account_kind, ledger_pb2.LedgerAccountKind),
    (ledger.entry_type, ledger_pb2.LedgerEntryType),
]


@pytest.mark.parametrize(
    ("converter", "proto"), CONVERTERS, ids=[proto.DESCRIPTOR.name for _, proto in CONVERTERS]
)
def test_every_member_has_its_twin(converter: EnumConverter[StrEnum], proto: Any) -> None:
    numbers = {number for number in proto.values() if number}
    members = {converter.decode(number) for number in numbers}
    assert {converter.encode(member) for member in members} == numbers
    assert members == set(type(next(iter(members))))
    assert converter.decode_filter(0) is None


def test_unspecified_can_have_a_meaning() -> None:
    default = CreditApplicationMode.AT_BILLING
    unspecified, _, realtime = subscription_pb2.CreditApplicationMode.values()
    assert subscriptions.credit_application.decode_or(unspecified, default) is default
    told = subscriptions.credit_application.decode_or(realtime, default)
    assert told is CreditApplicationMode.REALTIME


def test_a_moment_may_be_missing() -> None:
    request = ledger_pb2.GetBalanceRequest()
    assert decode_optional_time(request, "as_of") is None
    request.as_of.CopyFrom(timestamp(START))
    assert decode_optional_time(request, "as_of") == START
