"""The table of errors: which code, which details, and how long they may be."""

import inspect

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from billing.api import access, authentication, errors, signing_keys, violations
from billing.api.access import CapabilityMissing, TenantDenied
from billing.api.authentication import CredentialsExpired, CredentialsInvalid, CredentialsMissing
from billing.api.errors import MessageMalformed, MessageTooLarge, code_of, status_of
from billing.api.signing_keys import SigningKeysUnavailable
from billing.api.violations import FieldViolation, RequestInvalid
from billing.domain import credit_errors
from billing.domain import errors as domain_errors
from billing.domain.credit_errors import (
    CreditAlreadyExpired,
    CurrencyMismatch,
    ProcessorTransactionTaken,
    RefundExceedsPayment,
)
from billing.domain.errors import (
    BillingError,
    DatabaseUnavailable,
    FieldInvalid,
    PageTokenInvalid,
    RequestIdReused,
    ResourceNotFound,
    SubscriptionNotActive,
    UsageMeterCodeTaken,
)


def described(error: BaseException) -> status_pb2.Status:
    return status_of(error, request_id="request-1", trace_id="trace-1")


def error_info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def field_violations(status: status_pb2.Status) -> list[tuple[str, str]]:
    bad_request = error_details_pb2.BadRequest()
    assert status.details[-1].Unpack(bad_request)
    return [(violation.field, violation.description) for violation in bad_request.field_violations]


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ResourceNotFound(kind="plan", resource_id="plan_1"), "NOT_FOUND", "PLAN_NOT_FOUND"),
        (UsageMeterCodeTaken(code="api"), "ALREADY_EXISTS", "USAGE_METER_CODE_TAKEN"),
        (FieldInvalid("quantity", "is negative"), "INVALID_ARGUMENT", "FIELD_INVALID"),
        (PageTokenInvalid(), "INVALID_ARGUMENT", "PAGE_TOKEN_INVALID"),
        (
            RequestInvalid((FieldViolation("name", "is empty"),)),
            "INVALID_ARGUMENT",
            "FIELD_INVALID",
        ),
        (MessageMalformed(method="/a/B"), "INVALID_ARGUMENT", "MESSAGE_MALFORMED"),
        (
            MessageTooLarge(size_bytes=2, limit_bytes=1),
            "RESOURCE_EXHAUSTED",
            "MESSAGE_TOO_LARGE",
        ),
        (
            SubscriptionNotActive(subscription_id="sub_1", status="paused"),
            "FAILED_PRECONDITION",
            "SUBSCRIPTION_NOT_ACTIVE",
        ),
        (
            CurrencyMismatch(currency="EUR", expected="USD", of="sub_1"),
            "INVALID_ARGUMENT",
            "CURRENCY_MISMATCH",
        ),
        (
            CreditAlreadyExpired(usage_credit_id="credit_1", expires_at="2026-01-01"),
            "FAILED_PRECONDITION",
            "CREDIT_ALREADY_EXPIRED",
        ),
        (
            RefundExceedsPayment(
                payment_id="payment_1", amount_minor=3, paid_minor=9, refunded_minor=7
            ),
            "FAILED_PRECONDITION",
            "REFUND_EXCEEDS_PAYMENT",
        ),
        (
            ProcessorTransactionTaken(payment_id="payment_1", processor_transaction_id="ch_1"),
            "ALREADY_EXISTS",
            "PROCESSOR_TRANSACTION_TAKEN",
        ),
        (DatabaseUnavailable(), "UNAVAILABLE", "DATABASE_UNAVAILABLE"),
        (SigningKeysUnavailable(), "UNAVAILABLE", "SIGNING_KEYS_UNAVAILABLE"),
        (CredentialsMissing(), "UNAUTHENTICATED", "CREDENTIALS_MISSING"),
        (CredentialsExpired(), "UNAUTHENTICATED", "CREDENTIALS_EXPIRED"),
        (CredentialsInvalid("it is odd"), "UNAUTHENTICATED", "CREDENTIALS_INVALID"),
        (CapabilityMissing(capability="a:b"), "PERMISSION_DENIED", "CAPABILITY_MISSING"),
        (TenantDenied(tenant_id="acme"), "PERMISSION_DENIED", "TENANT_DENIED"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BillingError) else "",
)
def test_each_error_has_its_code_and_reason(error: BillingError, code: str, reason: str) -> None:
    status = described(error)
    assert code_of(error) is grpc.StatusCode[code]
    assert status.code == grpc.StatusCode[code].value[0]
    assert status.message == str(error)
    info = error_info(status)
    assert (info.reason, info.domain) == (reason, "billing-service")
    assert info.metadata == {**error.metadata, "x-request-id": "request-1"}


def test_every_error_belongs_to_a_family_of_the_table() -> None:
    ours = (access, authentication, errors, signing_keys, violations)
    modules = (domain_errors, credit_errors, *ours)
    kinds = {
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, BillingError) and kind is not BillingError
    }
    assert len(kinds) > 35
    assert [kind for kind in kinds if not set(kind.__mro__) & set(errors.CODES)] == []


def test_a_wrong_field_is_named() -> None:
    status = described(FieldInvalid("events[3].quantity", "is negative"))
    assert field_violations(status) == [("events[3].quantity", "is negative")]


def test_every_broken_rule_is_named() -> None:
    broken = (FieldViolation("name", "is empty"), FieldViolation("items[0].count", "is odd"))
    status = described(RequestInvalid(broken))
    assert status.message == "name: is empty (and 1 more)"
    assert field_violations(status) == [("name", "is empty"), ("items[0].count", "is odd")]


def test_a_retry_is_proposed_where_it_helps() -> None:
    retry = error_details_pb2.RetryInfo()
    assert described(DatabaseUnavailable()).details[-1].Unpack(retry)
    assert retry.retry_delay.seconds == 1
    assert len(described(CredentialsMissing()).details) == 1


def test_the_callers_request_id_is_not_that_of_the_rpc() -> None:
    info = error_info(described(RequestIdReused(request_id="key-1", method="RunBilling")))
    assert info.metadata["request_id"] == "key-1"
    assert info.metadata["x-request-id"] == "request-1"


class Unclassified(BillingError):
    """Belongs to no family: a mistake of ours."""


@pytest.mark.parametrize("error", [ValueError("secret"), Unclassified("secret"), KeyError("x")])
def test_unknown_errors_tell_a_trace_id_and_nothing_more(error: Exception) -> None:
    status = described(error)
    assert code_of(error) is grpc.StatusCode.INTERNAL
    assert status.message == "internal error; quote trace id trace-1"
    assert error_info(status).metadata == {"trace_id": "trace-1", "x-request-id": "request-1"}
    assert b"secret" not in status.SerializeToString()


@pytest.mark.parametrize("letter", ["x", "é", "漢", "𝄞"])
def test_a_status_fits_into_trailing_metadata_whatever_callers_send(letter: str) -> None:
    many = tuple(FieldViolation(letter * 5000, letter * 5000) for _ in range(500))
    for error in (RequestInvalid(many), TenantDenied(tenant_id=letter * 5000)):
        status = described(error)
        percent_encoded = 3 * len(status.message.encode())
        assert percent_encoded + status.ByteSize() * 4 // 3 < 8000
        assert error_info(status).reason
    assert len(field_violations(described(RequestInvalid(many)))) > 3
