"""What the ledger tells of one subscription: its accounts, its transactions, its statements.

Amounts are in minor units of the subscription's currency.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from billing.domain.ledger import LedgerAccountKind, LedgerEntry, LedgerSourceType
from billing.domain.pages import Page
from billing.domain.time_ranges import TimeRange


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountBalance:
    """What is in one account of a subscription.

    Of a credit it is what is there, of other accounts what is owed; ``pending_in_minor`` and
    ``pending_out_minor`` are what pending entries would add and take out. ``is_spendable`` is of
    credits: neither voided nor expired, and not of a billing period that is billed.
    """

    account_id: UUID
    kind: LedgerAccountKind
    opened_at: datetime
    posted_minor: int
    pending_in_minor: int
    pending_out_minor: int
    is_spendable: bool

    @property
    def pending_minor(self) -> int:
        """What would be there if all that is pending were posted."""
        return self.posted_minor + self.pending_in_minor - self.pending_out_minor

    @property
    def available_minor(self) -> int:
        """What pending entries leave alone."""
        return self.posted_minor - self.pending_out_minor


def account_balance(
    *,
    account_id: UUID,
    kind: LedgerAccountKind,
    opened_at: datetime,
    posted: tuple[int, int],
    pending: tuple[int, int],
    is_spendable: bool,
) -> AccountBalance:
    """Return the balance of an account by its posted and its pending (debits, credits)."""
    grows_by_credits = kind is LedgerAccountKind.CREDIT
    posted_out, posted_in = posted if grows_by_credits else reversed(posted)
    pending_out, pending_in = pending if grows_by_credits else reversed(pending)
    return AccountBalance(
        account_id=account_id,
        kind=kind,
        opened_at=opened_at,
        posted_minor=posted_in - posted_out,
        pending_in_minor=pending_in,
        pending_out_minor=pending_out,
        is_spendable=is_spendable,
    )


@dataclass(frozen=True, slots=True)
class AccountBalances:
    """What is in the accounts of a subscription at a moment, by recorded time."""

    subscription_id: UUID
    currency: str
    as_of: datetime
    accounts: tuple[AccountBalance, ...]

    @property
    def outstanding_minor(self) -> int:
        """What is owed."""
        return self._posted(LedgerAccountKind.RECEIVABLE)

    @property
    def credit_balance_minor(self) -> int:
        """What the books hold in credits."""
        return self._posted(LedgerAccountKind.CREDIT)

    @property
    def available_credit_minor(self) -> int:
        """What of it can be spent."""
        return _total(account.available_minor for account in self.accounts if account.is_spendable)

    @property
    def net_minor(self) -> int:
        """The balance from the subscription's side: negative is owed."""
        clearing_minor = self._posted(LedgerAccountKind.REFUND_CLEARING)
        return self.credit_balance_minor - self.outstanding_minor - clearing_minor

    def _posted(self, kind: LedgerAccountKind) -> int:
        return _total(account.posted_minor for account in self.accounts if account.kind is kind)


def _total(amounts_minor: Iterable[int]) -> int:
    return sum(amounts_minor)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerTransactionSummary:
    """A ledger transaction and what its posted entries did to what is owed, and to credits."""

    id: UUID
    subscription_id: UUID
    initiating_source_type: LedgerSourceType
    initiating_source_id: UUID
    description: str
    created_at: datetime
    posted_entry_count: int
    pending_entry_count: int
    net_minor: int
    outstanding_change_minor: int
    credit_balance_change_minor: int


@dataclass(frozen=True, slots=True)
class StatementBalance:
    """What a subscription owes and has at one end of a statement."""

    outstanding_minor: int
    credit_balance_minor: int
    refund_clearing_minor: int

    @property
    def net_minor(self) -> int:
        """The balance from the subscription's side: negative is owed."""
        return self.credit_balance_minor - self.outstanding_minor - self.refund_clearing_minor


@dataclass(frozen=True, slots=True)
class StatementMovement:
    """A posted entry that changed the balance, and the balance after it."""

    entry: LedgerEntry
    running_net_minor: int


@dataclass(frozen=True, slots=True)
class StatementPart:
    """Both ends of a statement, and a page of the movements between them."""

    opening: StatementBalance
    closing: StatementBalance
    movements: Page[StatementMovement]


@dataclass(frozen=True, slots=True)
class Statement:
    """How a subscription came from one balance to another, in a span of time or billing period."""

    subscription_id: UUID
    currency: str
    span: TimeRange
    billing_period_id: UUID | None
    part: StatementPart
