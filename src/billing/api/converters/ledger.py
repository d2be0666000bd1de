"""Ledger entries, transactions and balances."""

from uuid import UUID

from billing.api.converters.values import (
    EnumConverter,
    decode_id,
    decode_optional_id,
    encode_optional_id,
    encode_time,
)
from billing.domain import identifiers
from billing.domain.errors import FieldInvalid
from billing.domain.ledger import (
    Balance,
    LedgerAccountKind,
    LedgerEntry,
    LedgerEntryStatus,
    LedgerEntryType,
    LedgerSourceType,
    LedgerTransaction,
    TrialBalanceLine,
)
from billing.domain.ledger_filters import (
    LEDGER_ENTRY_SOURCES,
    LedgerEntryFilter,
    LedgerEntrySource,
    LedgerEntryStatusFilter,
)
from billing.v1 import ledger_pb2 as pb

account_kind = EnumConverter(pb.LedgerAccountKind, "LEDGER_ACCOUNT_KIND", LedgerAccountKind)
entry_type = EnumConverter(pb.LedgerEntryType, "LEDGER_ENTRY_TYPE", LedgerEntryType)
entry_status = EnumConverter(pb.LedgerEntryStatus, "LEDGER_ENTRY_STATUS", LedgerEntryStatus)
entry_status_filter = EnumConverter(
    pb.LedgerEntryStatusFilter, "LEDGER_ENTRY_STATUS_FILTER", LedgerEntryStatusFilter
)

_SOURCE_PREFIXES = {
    LedgerSourceType.USAGE_INGESTION: identifiers.INGESTION,
    LedgerSourceType.BILLING_RUN: identifiers.BILLING_RUN,
    LedgerSourceType.CREDIT_GRANT: identifiers.USAGE_CREDIT,
    LedgerSourceType.CREDIT_VOID: identifiers.USAGE_CREDIT,
    LedgerSourceType.CREDIT_BALANCE_ADJUSTMENT: identifiers.CREDIT_BALANCE_ADJUSTMENT,
    LedgerSourceType.CREDIT_EXPIRATION: identifiers.CREDIT_EXPIRATION,
    LedgerSourceType.PAYMENT: identifiers.PAYMENT,
    LedgerSourceType.REFUND: identifiers.REFUND,
    LedgerSourceType.USAGE_EVENT_CORRECTION: identifiers.USAGE_EVENT_CORRECTION,
    LedgerSourceType.ESTIMATE: identifiers.CALCULATION_RUN,
    LedgerSourceType.RECALCULATION: identifiers.CALCULATION_RUN,
    LedgerSourceType.WRITE_OFF: identifiers.WRITE_OFF,
    LedgerSourceType.WRITE_OFF_RECOVERY: identifiers.WRITE_OFF,
}


def encode_ledger_entry(entry: LedgerEntry) -> pb.LedgerEntry:
    """Return the message of an entry."""
    return pb.LedgerEntry(
        id=identifiers.to_typeid(identifiers.LEDGER_ENTRY, entry.id),
        ledger_transaction_id=identifiers.to_typeid(
            identifiers.LEDGER_TRANSACTION, entry.ledger_transaction_id
        ),
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, entry.subscription_id),
        entry_type=entry_type.encode(entry.entry_type),
        status=entry_status.encode(entry.status),
        amount=entry.amount_minor,
        currency=entry.currency,
        debit_account_id=identifiers.to_typeid(identifiers.LEDGER_ACCOUNT, entry.debit_account_id),
        debit_account_kind=account_kind.encode(entry.debit_account_kind),
        credit_account_id=identifiers.to_typeid(
            identifiers.LEDGER_ACCOUNT, entry.credit_account_id
        ),
        credit_account_kind=account_kind.encode(entry.credit_account_kind),
        **encode_sources(entry),
        billing_period_id=encode_optional_id(identifiers.BILLING_PERIOD, entry.billing_period_id),
        usage_meter_id=encode_optional_id(identifiers.USAGE_METER, entry.usage_meter_id),
        calculation_run_id=encode_optional_id(
            identifiers.CALCULATION_RUN, entry.calculation_run_id
        ),
        applied_to_ledger_entry_id=encode_optional_id(
            identifiers.LEDGER_ENTRY, entry.applied_to_ledger_entry_id
        ),
        description=entry.description,
        entry_timestamp=encode_time(entry.entry_timestamp),
        posted_at=encode_time(entry.posted_at),
        discarded_at=encode_time(entry.discarded_at),
    )


def encode_sources(entry: LedgerEntry) -> dict[str, str]:
    """Return the ids of what caused an entry by field; empty where it is nothing of the kind."""
    return {
        field: encode_optional_id(prefix, getattr(entry, field))
        for prefix, field in LEDGER_ENTRY_SOURCES.items()
    }


def encode_initiating_source(source_type: LedgerSourceType, source_id: UUID) -> str:
    """Return the id of what caused a ledger transaction."""
    return identifiers.to_typeid(_SOURCE_PREFIXES[source_type], source_id)


def decode_source_type(text: str, field: str) -> LedgerSourceType | None:
    """Return a kind of cause, None for an empty text; raises FieldInvalid."""
    if not text:
        return None
    try:
        return LedgerSourceType(text)
    except ValueError:
        known = ", ".join(LedgerSourceType)
        raise FieldInvalid(
            field, f"{text!r} causes no ledger transactions; known are: {known}"
        ) from None


def decode_entry_filter(request: pb.ListLedgerEntriesRequest) -> LedgerEntryFilter:
    """Return what the entries of a list must have; raises FieldInvalid."""
    return LedgerEntryFilter(
        billing_period_id=decode_optional_id(
            identifiers.BILLING_PERIOD, request.billing_period_id, "billing_period_id"
        ),
        entry_type=entry_type.decode_filter(request.entry_type),
        status=entry_status_filter.decode_filter(request.status),
        component_id=decode_optional_id(
            identifiers.COMPONENT, request.component_id, "component_id"
        ),
        source=_decode_source(request.source_id) if request.source_id else None,
        calculation_run_id=decode_optional_id(
            identifiers.CALCULATION_RUN, request.calculation_run_id, "calculation_run_id"
        ),
    )


def _decode_source(text: str) -> LedgerEntrySource:
    prefix = text.rpartition("_")[0]
    field = LEDGER_ENTRY_SOURCES.get(prefix)
    if field is None:
        known = ", ".join(f"{each}_..." for each in LEDGER_ENTRY_SOURCES)
        raise FieldInvalid(
            "source_id",
            f"{prefix}_... is the id of nothing that causes entries; known are: {known}",
        )
    return LedgerEntrySource(field, decode_id(prefix, text, "source_id"))


def encode_ledger_transaction(transaction: LedgerTransaction) -> pb.LedgerTransaction:
    """Return the message of a transaction with its entries."""
    source_type = transaction.initiating_source_type
    return pb.LedgerTransaction(
        id=identifiers.to_typeid(identifiers.LEDGER_TRANSACTION, transaction.id),
        subscription_id=identifiers.to_typeid(
            identifiers.SUBSCRIPTION, transaction.subscription_id
        ),
        initiating_source_type=source_type.value,
        initiating_source_id=encode_initiating_source(
            source_type, transaction.initiating_source_id
        ),
        description=transaction.description,
        created_at=encode_time(transaction.created_at),
        entries=[encode_ledger_entry(entry) for entry in transaction.entries],
    )


def encode_balance(balance: Balance) -> pb.Balance:
    """Return the message of a balance."""
    return pb.Balance(
        subscription_id=identifiers.to_typeid(identifiers.SUBSCRIPTION, balance.subscription_id),
        currency=balance.currency,
        outstanding_amount=balance.outstanding_minor,
        unbilled_amount=balance.unbilled_minor,
        billed_not_invoiced_amount=balance.billed_not_invoiced_minor,
        invoiced_amount=balance.invoiced_minor,
        net_amount=balance.net_minor,
        credit_balance_amount=balance.credit_balance_minor,
        available_credit_amount=balance.available_credit_minor,
        as_of=encode_time(balance.as_of),
    )


def encode_trial_balance_line(line: TrialBalanceLine) -> pb.TrialBalanceLine:
    """Return the message of a line."""
    return pb.TrialBalanceLine(
        account_kind=account_kind.encode(line.account_kind),
        currency=line.currency,
        debit_amount=line.debit_minor,
        credit_amount=line.credit_minor,
    )
