"""The audit of the ledger: what is compared, and what does not agree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from billing.domain.ledger import LedgerEntryType
from billing.domain.money import grouped

MAX_FINDINGS_PER_CHECK: Final = 100
"""So many findings of a check are told at a time; the others are counted."""


class LedgerAuditCheck(StrEnum):
    """What is compared with what; the contract says it of each."""

    TRIAL_BALANCE = "trial_balance"
    PENDING_RESULTS = "pending_results"
    ENTRY_RULES = "entry_rules"
    USAGE_ENTRIES = "usage_entries"
    USAGE_CORRECTIONS = "usage_corrections"
    CHARGE_ENTRIES = "charge_entries"
    CREDIT_ORIGINS = "credit_origins"
    APPLICATION_ENTRIES = "application_entries"
    ADJUSTMENT_ENTRIES = "adjustment_entries"
    PAYMENT_ENTRIES = "payment_entries"
    REFUND_ENTRIES = "refund_entries"
    REFUND_CLEARING = "refund_clearing"
    WRITE_OFFS = "write_offs"
    RECALCULATIONS = "recalculations"
    PENDING_ENTRIES = "pending_entries"
    CREDIT_BALANCES = "credit_balances"
    CREDIT_HISTORY = "credit_history"
    CREDIT_HOLDS = "credit_holds"
    CREDIT_STATUS = "credit_status"
    USAGE_AGGREGATES = "usage_aggregates"
    USAGE_RATING = "usage_rating"
    CALCULATION_AMOUNTS = "calculation_amounts"
    CALCULATION_CHAINS = "calculation_chains"
    ESTIMATES = "estimates"
    PERIOD_CHARGES = "period_charges"
    PERIOD_RECEIVABLES = "period_receivables"
    CLOSING_RECEIVABLES = "closing_receivables"
    BALANCES = "balances"
    INVOICE_REQUESTS = "invoice_requests"
    INVOICES = "invoices"


TENANT_CHECKS: Final = (LedgerAuditCheck.TRIAL_BALANCE, LedgerAuditCheck.PENDING_RESULTS)
"""Of the whole tenant, once an audit; all others are of subscriptions."""

BOOK_CHECKS: Final = tuple(
    check
    for check in LedgerAuditCheck
    if check not in (*TENANT_CHECKS, LedgerAuditCheck.BALANCES, LedgerAuditCheck.INVOICES)
)
"""Each is one statement about some subscriptions."""

RAW_USAGE_TYPES: Final = (
    LedgerEntryType.USAGE_COST,
    LedgerEntryType.USAGE_COST_CORRECTED,
    LedgerEntryType.BILLING_ADJUSTMENT,
)
"""Posted, and added up, they are the raw usage of a calculation."""

RUNNING_USAGE_TYPES: Final = (LedgerEntryType.USAGE_COST, LedgerEntryType.USAGE_COST_CORRECTED)
"""While a period is open, what it is owed for these stands in its running usage figures."""


@dataclass(frozen=True, slots=True)
class LedgerAuditFinding:
    """One difference. Amounts are in minor units; ``resource_ids`` are TypeIDs, nearest first."""

    check: LedgerAuditCheck
    problem: str
    subscription_id: UUID | None = None
    billing_period_id: UUID | None = None
    resource_ids: tuple[str, ...] = ()
    currency: str = ""
    expected_minor: int | None = None
    actual_minor: int | None = None
    expected_quantity: Decimal | None = None
    actual_quantity: Decimal | None = None

    @property
    def message(self) -> str:
        """The difference for people, with its figures."""
        figures = (
            _figures(self.expected_minor, self.actual_minor)
            if self.expected_quantity is None
            else _figures(self.expected_quantity, self.actual_quantity)
        )
        return f"{self.problem}{figures}"


def _figures(expected: Decimal | int | None, actual: Decimal | int | None) -> str:
    if actual is None:
        return "" if expected is None else f": {_grouped(expected)} expected"
    if expected is None:
        return f": {_grouped(actual)}"
    return f": {_grouped(actual)} instead of {_grouped(expected)}"


def _grouped(value: Decimal | int) -> str:
    return f"{value:,}" if isinstance(value, int) else grouped(value)


class CheckedBooks(NamedTuple):
    """What a check found: the first findings, and how many there are."""

    findings: tuple[LedgerAuditFinding, ...]
    finding_count: int


@dataclass(frozen=True, slots=True)
class AskedInvoice:
    """An invoice of a period, and what was asked for; amounts in minor units.

    ``credited_minor`` is what credit notes took back of it.
    """

    subscription_id: UUID
    billing_period_id: UUID
    invoice_id: str
    customer_id: str
    currency: str
    total_minor: int
    credited_minor: int
    is_voided: bool


@dataclass(frozen=True, slots=True)
class AuditedInvoices:
    """What comparing invoices with the invoicing service came to."""

    findings: tuple[LedgerAuditFinding, ...] = ()
    compared_count: int = 0
    unchecked_count: int = 0
    unchecked_reason: str = ""


@dataclass(frozen=True, slots=True)
class LedgerAudit:
    """A part of an audit; ``next_after`` is the last subscription of it, None at the end."""

    checks: Mapping[LedgerAuditCheck, CheckedBooks]
    subscription_count: int
    invoices: AuditedInvoices
    as_of: datetime
    next_after: UUID | None

    @property
    def finding_counts(self) -> Mapping[LedgerAuditCheck, int]:
        """How much each check that was made found."""
        return {check: found.finding_count for check, found in self.checks.items()}


@dataclass(frozen=True, slots=True)
class LedgerAuditPosition:
    """How far an audit came: the last subscription, and how much was found so far.

    ``limit`` is how many subscriptions come next.
    """

    limit: int
    after: UUID | None = None
    found: Mapping[LedgerAuditCheck, int] = field(default_factory=dict)

    def found_with(self, audit: LedgerAudit) -> Mapping[LedgerAuditCheck, int]:
        """Return how much was found with one more part, by the checks that were made."""
        made = audit.finding_counts.keys() | (TENANT_CHECKS if self.after else ())
        return {
            check: self.found.get(check, 0) + audit.finding_counts.get(check, 0)
            for check in LedgerAuditCheck
            if check in made
        }
