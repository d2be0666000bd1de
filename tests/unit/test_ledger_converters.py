"""The ledger between the contract and the domain: all fields arrive."""

from dataclasses import replace
from datetime import timedelta

import pytest
from google.protobuf.message import Message

from billing.api.converters import ledger
from billing.domain.identifiers import new_id, to_typeid
from billing.domain.ledger import (
    Balance,
    LedgerAccountKind,
    LedgerEntry,
    LedgerEntryStatus,
    LedgerEntryType,
    LedgerSourceType,
    LedgerTransaction,
)
from billing.v1 import ledger_pb2 as pb
from tests.factories.clock import START

CAUSES = {
    LedgerSourceType.USAGE_INGESTION: "ingest",
    LedgerSourceType.BILLING_RUN: "run",
    LedgerSourceType.CREDIT_GRANT: "credit",
    LedgerSourceType.CREDIT_VOID: "credit",
    LedgerSourceType.CREDIT_BALANCE_ADJUSTMENT: "creditadj",
    LedgerSourceType.CREDIT_EXPIRATION: "expiry",
    LedgerSourceType.PAYMENT: "payment",
    LedgerSourceType.REFUND: "refund",
    LedgerSourceType.USAGE_EVENT_CORRECTION: "usagecorr",
    LedgerSourceType.ESTIMATE: "calcrun",
    LedgerSourceType.RECALCULATION: "calcrun",
    LedgerSourceType.WRITE_OFF: "writeoff",
    LedgerSourceType.WRITE_OFF_RECOVERY: "writeoff",
}

ENTRY = LedgerEntry(
    id=new_id(),
    ledger_transaction_id=new_id(),
    subscription_id=new_id(),
    entry_type=LedgerEntryType.CREDIT_APPLIED_TO_USAGE,
    status=LedgerEntryStatus.PENDING,
    amount_minor=500,
    currency="EUR",
    debit_account_id=new_id(),
    debit_account_kind=LedgerAccountKind.CREDIT,
    credit_account_id=new_id(),
    credit_account_kind=LedgerAccountKind.RECEIVABLE,
    source_usage_event_id=new_id(),
    source_charge_id=new_id(),
    source_usage_credit_id=new_id(),
    source_credit_application_id=new_id(),
    source_credit_balance_adjustment_id=new_id(),
    source_payment_id=new_id(),
    source_billing_period_calculation_id=new_id(),
    source_write_off_id=new_id(),
    source_refund_id=new_id(),
    billing_period_id=new_id(),
    usage_meter_id=new_id(),
    calculation_run_id=new_id(),
    applied_to_ledger_entry_id=new_id(),
    description="for people",
    entry_timestamp=START,
    posted_at=START + timedelta(days=1),
    discarded_at=START + timedelta(days=2),
)


def set_fields(message: Message) -> set[str]:
    """The names of the fields that hold something."""
    return {field.name for field, _ in message.ListFields()}


def test_an_entry_arrives_whole_with_its_causes() -> None:
    message = ledger.encode_ledger_entry(ENTRY)
    assert set_fields(message) == set(message.DESCRIPTOR.fields_by_name)
    causes = {
        "credit": (message.source_usage_credit_id, ENTRY.source_usage_credit_id),
        "creditapp": (message.source_credit_application_id, ENTRY.source_credit_application_id),
        "creditadj": (
            message.source_credit_balance_adjustment_id,
            ENTRY.source_credit_balance_adjustment_id,
        ),
        "payment": (message.source_payment_id, ENTRY.source_payment_id),
        "refund": (message.source_refund_id, ENTRY.source_refund_id),
    }
    for prefix, (told, known) in causes.items():
        assert known is not None
        assert told == to_typeid(prefix, known)


def test_causes_that_an_entry_does_not_have_stay_unset() -> None:
    of_usage = replace(
        ENTRY,
        source_usage_credit_id=None,
        source_credit_application_id=None,
        source_credit_balance_adjustment_id=None,
        source_payment_id=None,
        source_refund_id=None,
        source_billing_period_calculation_id=None,
        source_write_off_id=None,
    )
    message = ledger.encode_ledger_entry(of_usage)
    assert {name for name in set_fields(message) if name.startswith("source_")} == {
        "source_usage_event_id",
        "source_charge_id",
    }


@pytest.mark.parametrize("source", LedgerSourceType)
def test_a_transaction_names_what_caused_it(source: LedgerSourceType) -> None:
    message = ledger.encode_ledger_transaction(
        LedgerTransaction(new_id(), new_id(), source, new_id(), "for people", START, ())
    )
    prefix, _, _ = message.initiating_source_id.rpartition("_")
    assert (message.initiating_source_type, prefix) == (source.value, CAUSES[source])


def test_a_balance_tells_of_credits() -> None:
    message = ledger.encode_balance(
        Balance(
            subscription_id=new_id(),
            currency="EUR",
            unbilled_minor=100,
            billed_not_invoiced_minor=20,
            invoiced_minor=3,
            credit_balance_minor=50,
            available_credit_minor=40,
            as_of=START,
        )
    )
    assert set_fields(message) == set(pb.Balance.DESCRIPTOR.fields_by_name)
    assert (message.credit_balance_amount, message.available_credit_amount) == (50, 40)
    assert (message.outstanding_amount, message.net_amount) == (123, -73)
