"""The plan and the books of the reference: prices, postings, and what they come to at any time.

Plain integers in minor units and datetimes; nothing of the service is used here.
"""

from calendar import monthrange
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import NamedTuple

RECEIVABLE = "receivable"
CREDIT = "credit"
CLEARING = "refund_clearing"
CASH = "cash"
BREAKAGE = "breakage"
PROMOTIONAL_EXPENSE = "promotional_expense"
ALLOWANCES = "refunds_and_allowances"
USAGE_REVENUE = "usage_revenue"
SUBSCRIPTION_REVENUE = "subscription_revenue"
BAD_DEBT = "bad_debt"

OWN_KINDS = frozenset({RECEIVABLE, CREDIT, CLEARING})
"""The accounts that a subscription has for itself; its net balance is told from them."""


@dataclass(frozen=True)
class Plan:
    """``interval_days`` zero is a calendar month; ``prices`` are (unit price, included units).

    With ``holds_late_usage`` usage of a billed period waits there for a recalculation.
    """

    interval_days: int
    base: int
    prices: tuple[tuple[str, str], ...]
    holds_late_usage: bool = False

    @property
    def components(self) -> range:
        """The numbers of the components, in the plan's order."""
        return range(len(self.prices))

    def boundary(self, anchor: datetime, index: int) -> datetime:
        """The end of a subscription's ``index``-th billing period, counted from one."""
        if self.interval_days:
            return anchor + timedelta(days=self.interval_days * index)
        months = anchor.month - 1 + index
        year, month = anchor.year + months // 12, months % 12 + 1
        return anchor.replace(
            year=year, month=month, day=min(anchor.day, monthrange(year, month)[1])
        )

    def charge(self, component: int, quantity: Decimal) -> int:
        """What a period's quantity of a component costs, halves up."""
        price, included = (Decimal(text) for text in self.prices[component])
        over = max(quantity - included, Decimal(0))
        return int((over * price).quantize(Decimal(1), rounding=ROUND_HALF_UP))


class Account(NamedTuple):
    """A side of a posting; of credits there is one account each, named by the credit's number."""

    kind: str
    credit: int | None = None


@dataclass
class Posting:
    """One movement of value. ``amount`` is from the subscription's side: negative is owed."""

    entry_type: str
    amount: int
    debit: Account
    credit: Account
    made_at: datetime
    posted_at: datetime | None
    period: int | None
    discarded_at: datetime | None = None

    def is_posted(self, at: datetime) -> bool:
        """Whether it counted at a moment."""
        return self.posted_at is not None and self.posted_at <= at

    def is_pending(self, at: datetime) -> bool:
        """Whether it was there at a moment, and neither counted nor was discarded."""
        is_discarded = self.discarded_at is not None and self.discarded_at <= at
        return self.made_at <= at and not self.is_posted(at) and not is_discarded

    def debits(self, account: Account) -> int:
        """What it adds to the debit side of an account: negative on the credit side."""
        value = abs(self.amount)
        return value * ((self.debit == account) - (self.credit == account))

    @property
    def own_legs_count(self) -> int:
        """How many of its two sides are the subscription's own."""
        return (self.debit.kind in OWN_KINDS) + (self.credit.kind in OWN_KINDS)


@dataclass
class Books:
    """All postings of one subscription, oldest first."""

    postings: list[Posting] = field(default_factory=list)

    def post(
        self,
        entry_type: str,
        amount: int,
        debit: Account,
        credit: Account,
        now: datetime,
        *,
        period: int | None = None,
        is_pending: bool = False,
    ) -> Posting:
        """Write a posting; a pending one counts once ``posted_at`` is set."""
        posted_at = None if is_pending else now
        posting = Posting(entry_type, amount, debit, credit, now, posted_at, period)
        self.postings.append(posting)
        return posting

    def posted(self, at: datetime) -> Iterator[Posting]:
        """The postings that counted at a moment."""
        return (posting for posting in self.postings if posting.is_posted(at))

    def receivable(self, period: int, at: datetime) -> int:
        """What a billing period owed at a moment."""
        account = Account(RECEIVABLE)
        return sum(p.debits(account) for p in self.posted(at) if p.period == period)

    def credit_value(self, credit: int, at: datetime) -> int:
        """What the books held in a credit at a moment."""
        account = Account(CREDIT, credit)
        return -sum(p.debits(account) for p in self.posted(at))

    def credit_held(self, credit: int, at: datetime) -> int:
        """What pending postings were about to take of a credit at a moment, on balance."""
        account = Account(CREDIT, credit)
        return sum(p.debits(account) for p in self.postings if p.is_pending(at))

    def clearing(self, at: datetime) -> int:
        """What refund clearing held at a moment: always zero."""
        return sum(p.debits(Account(CLEARING)) for p in self.posted(at))

    def net(self, at: datetime) -> int:
        """The amounts that moved value into or out of what the subscription owes and has."""
        return sum(p.amount for p in self.posted(at) if p.own_legs_count == 1)

    def amounts_by_type(self, at: datetime) -> dict[str, int]:
        """The sum of the posted amounts by entry type, zeros left out."""
        sums: Counter[str] = Counter()
        for posting in self.posted(at):
            sums[posting.entry_type] += posting.amount
        return {entry_type: amount for entry_type, amount in sums.items() if amount}

    def sides_by_kind(self, at: datetime) -> dict[str, tuple[int, int]]:
        """Posted debits and credits by kind of account."""
        debits: Counter[str] = Counter()
        credits_: Counter[str] = Counter()
        for posting in self.posted(at):
            debits[posting.debit.kind] += abs(posting.amount)
            credits_[posting.credit.kind] += abs(posting.amount)
        return {kind: (debits[kind], credits_[kind]) for kind in debits | credits_}
