"""The double-entry ledger: accounts, entry types and the rule that joins them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID


class LedgerAccountKind(StrEnum):
    """``receivable`` and ``refund_clearing`` are one a subscription, ``credit`` one a usage credit.

    The others are one a tenant and currency.
    """

    RECEIVABLE = "receivable"
    USAGE_REVENUE = "usage_revenue"
    SUBSCRIPTION_REVENUE = "subscription_revenue"
    CREDIT = "credit"
    CASH = "cash"
    PROMOTIONAL_EXPENSE = "promotional_expense"
    BREAKAGE = "breakage"
    REFUND_CLEARING = "refund_clearing"
    REFUNDS_AND_ALLOWANCES = "refunds_and_allowances"
    BAD_DEBT = "bad_debt"


SUBSCRIPTION_ACCOUNT_KINDS: Final = (
    LedgerAccountKind.RECEIVABLE,
    LedgerAccountKind.CREDIT,
    LedgerAccountKind.REFUND_CLEARING,
)
"""What one subscription owes and has; the balance is told from these."""

TENANT_ACCOUNT_KINDS: Final = tuple(
    kind for kind in LedgerAccountKind if kind not in SUBSCRIPTION_ACCOUNT_KINDS
)


class LedgerEntryType(StrEnum):
    """Why an entry exists."""

    USAGE_COST = "usage_cost"
    USAGE_COST_CORRECTED = "usage_cost_corrected"
    CHARGE_BILLED = "charge_billed"
    PAYMENT_RECOGNIZED = "payment_recognized"
    CREDIT_GRANT_RECOGNIZED = "credit_grant_recognized"
    SURPLUS_CREDITED = "surplus_credited"
    CREDIT_APPLIED_TO_USAGE = "credit_applied_to_usage"
    CREDIT_APPLIED_TO_CHARGE = "credit_applied_to_charge"
    CREDIT_APPLICATION_REVERSED = "credit_application_reversed"
    CREDIT_BALANCE_ADJUSTED = "credit_balance_adjusted"
    CREDIT_DEFICIT_CHARGED = "credit_deficit_charged"
    CREDIT_GRANT_EXPIRED = "credit_grant_expired"
    PAYMENT_REFUNDED = "payment_refunded"
    REFUND_ABSORBED = "refund_absorbed"
    BILLING_ADJUSTMENT = "billing_adjustment"
    RECEIVABLE_WRITTEN_OFF = "receivable_written_off"


class LedgerEntryStatus(StrEnum):
    """``pending`` may still be discarded, ``posted`` never changes."""

    PENDING = "pending"
    POSTED = "posted"


class LedgerSourceType(StrEnum):
    """What a ledger transaction was initiated by."""

    USAGE_INGESTION = "usage_ingestion"
    BILLING_RUN = "billing_run"
    CREDIT_GRANT = "credit_grant"
    CREDIT_VOID = "credit_void"
    CREDIT_BALANCE_ADJUSTMENT = "credit_balance_adjustment"
    CREDIT_EXPIRATION = "credit_expiration"
    PAYMENT = "payment"
    REFUND = "refund"
    USAGE_EVENT_CORRECTION = "usage_event_correction"
    ESTIMATE = "estimate"
    RECALCULATION = "recalculation"
    WRITE_OFF = "write_off"
    WRITE_OFF_RECOVERY = "write_off_recovery"


class PostingRule(NamedTuple):
    """Between which kinds of account an entry moves value.

    ``sign`` is of the amount from the subscription's side: +1, or -1, which stands for zero too.
    """

    entry_type: LedgerEntryType
    sign: int
    debit: LedgerAccountKind
    credit: LedgerAccountKind


def _rules() -> Iterator[PostingRule]:
    kind, entry = LedgerAccountKind, LedgerEntryType
    yield PostingRule(entry.USAGE_COST, -1, kind.RECEIVABLE, kind.USAGE_REVENUE)
    for corrected in (entry.USAGE_COST_CORRECTED, entry.BILLING_ADJUSTMENT):
        yield PostingRule(corrected, -1, kind.RECEIVABLE, kind.USAGE_REVENUE)
        yield PostingRule(corrected, 1, kind.USAGE_REVENUE, kind.RECEIVABLE)
    yield PostingRule(entry.CHARGE_BILLED, -1, kind.RECEIVABLE, kind.SUBSCRIPTION_REVENUE)
    yield PostingRule(entry.CHARGE_BILLED, 1, kind.SUBSCRIPTION_REVENUE, kind.RECEIVABLE)
    yield PostingRule(entry.PAYMENT_RECOGNIZED, 1, kind.CASH, kind.CREDIT)
    yield PostingRule(entry.CREDIT_GRANT_RECOGNIZED, 1, kind.PROMOTIONAL_EXPENSE, kind.CREDIT)
    yield PostingRule(entry.SURPLUS_CREDITED, 1, kind.RECEIVABLE, kind.CREDIT)
    yield PostingRule(entry.CREDIT_APPLIED_TO_USAGE, 1, kind.CREDIT, kind.RECEIVABLE)
    yield PostingRule(entry.CREDIT_APPLIED_TO_CHARGE, 1, kind.CREDIT, kind.RECEIVABLE)
    yield PostingRule(entry.CREDIT_APPLICATION_REVERSED, -1, kind.RECEIVABLE, kind.CREDIT)
    yield PostingRule(entry.CREDIT_BALANCE_ADJUSTED, 1, kind.PROMOTIONAL_EXPENSE, kind.CREDIT)
    for taker in (kind.REFUND_CLEARING, kind.BREAKAGE, kind.PROMOTIONAL_EXPENSE):
        yield PostingRule(entry.CREDIT_BALANCE_ADJUSTED, -1, kind.CREDIT, taker)
    for taker in (kind.REFUND_CLEARING, kind.PROMOTIONAL_EXPENSE):
        yield PostingRule(entry.CREDIT_DEFICIT_CHARGED, -1, kind.RECEIVABLE, taker)
    for taker in (kind.BREAKAGE, kind.PROMOTIONAL_EXPENSE):
        yield PostingRule(entry.CREDIT_GRANT_EXPIRED, -1, kind.CREDIT, taker)
    yield PostingRule(entry.PAYMENT_REFUNDED, -1, kind.REFUND_CLEARING, kind.CASH)
    yield PostingRule(entry.REFUND_ABSORBED, 1, kind.REFUNDS_AND_ALLOWANCES, kind.REFUND_CLEARING)
    yield PostingRule(entry.RECEIVABLE_WRITTEN_OFF, 1, kind.BAD_DEBT, kind.RECEIVABLE)
    yield PostingRule(entry.RECEIVABLE_WRITTEN_OFF, -1, kind.RECEIVABLE, kind.BAD_DEBT)


POSTING_RULES: Final = frozenset(_rules())
"""The database holds the same rules: a trigger refuses an entry between other accounts."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One movement of value. ``amount_minor`` is from the subscription's side: negative is owed."""

    id: UUID
    ledger_transaction_id: UUID
    subscription_id: UUID
    entry_type: LedgerEntryType
    status: LedgerEntryStatus
    amount_minor: int
    currency: str
    debit_account_id: UUID
    debit_account_kind: LedgerAccountKind
    credit_account_id: UUID
    credit_account_kind: LedgerAccountKind
    source_usage_event_id: UUID | None
    source_charge_id: UUID | None
    source_usage_credit_id: UUID | None
    source_credit_application_id: UUID | None
    source_credit_balance_adjustment_id: UUID | None
    source_billing_period_calculation_id: UUID | None
    source_payment_id: UUID | None
    source_refund_id: UUID | None
    source_write_off_id: UUID | None
    billing_period_id: UUID | None
    usage_meter_id: UUID | None
    calculation_run_id: UUID | None
    applied_to_ledger_entry_id: UUID | None
    description: str
    entry_timestamp: datetime
    posted_at: datetime | None
    discarded_at: datetime | None


@dataclass(frozen=True, slots=True)
class LedgerTransaction:
    """One business operation; groups its entries."""

    id: UUID
    subscription_id: UUID
    initiating_source_type: LedgerSourceType
    initiating_source_id: UUID
    description: str
    created_at: datetime
    entries: tuple[LedgerEntry, ...]


@dataclass(frozen=True, slots=True)
class Balance:
    """What a subscription owes and has, in minor units of its currency.

    ``credit_balance_minor`` is what the books hold in its credits, ``available_credit_minor`` the
    part of it that can be spent.
    """

    subscription_id: UUID
    currency: str
    unbilled_minor: int
    billed_not_invoiced_minor: int
    invoiced_minor: int
    credit_balance_minor: int
    available_credit_minor: int
    as_of: datetime

    @property
    def outstanding_minor(self) -> int:
        """All that is owed."""
        return self.unbilled_minor + self.billed_not_invoiced_minor + self.invoiced_minor

    @property
    def net_minor(self) -> int:
        """The balance from the subscription's side: negative is owed. Refund clearing is zero."""
        return self.credit_balance_minor - self.outstanding_minor


@dataclass(frozen=True, slots=True)
class TrialBalanceLine:
    """Posted debits and credits of one kind of account in one currency, in minor units."""

    account_kind: LedgerAccountKind
    currency: str
    debit_minor: int
    credit_minor: int
