"""A reader of journals that knows nothing of how they are written: dates, postings, decimals."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

_HEADING = re.compile(r"(\d{4}-\d\d-\d\d) \* \((\w+)\) (.*)")
_POSTING = re.compile(r"    (\S(?:.*?\S)?)  (-?\d+(?:\.\d+)?) ([A-Z]{3})  ; (.*)")


@dataclass
class JournalTransaction:
    """One transaction; a posting is account, amount, currency, tags."""

    date: str
    code: str
    description: str
    postings: list[tuple[str, Decimal, str, dict[str, str]]] = field(default_factory=list)


@dataclass
class Journal:
    """What a journal says."""

    transactions: Sequence[JournalTransaction]
    accounts: Sequence[str]
    commodities: Mapping[str, str]

    def totals(self) -> dict[tuple[str, str], tuple[Decimal, Decimal]]:
        """Return debits and credits by account and currency."""
        nothing = (Decimal(0), Decimal(0))
        totals: dict[tuple[str, str], tuple[Decimal, Decimal]] = defaultdict(lambda: nothing)
        for transaction in self.transactions:
            for account, amount, currency, _ in transaction.postings:
                debits, credits_ = totals[account, currency]
                totals[account, currency] = (
                    debits + max(amount, Decimal(0)),
                    credits_ + max(-amount, Decimal(0)),
                )
        return dict(totals)


def read_journal(text: str) -> Journal:
    """Read a journal; a line that is none of its kinds is an error."""
    transactions: list[JournalTransaction] = []
    accounts: list[str] = []
    commodities: dict[str, str] = {}
    for line in text.splitlines():
        heading, posting = _HEADING.fullmatch(line), _POSTING.fullmatch(line)
        if heading:
            date, code, description = heading.groups()
            transactions.append(JournalTransaction(date, code, description))
        elif posting:
            account, amount, currency, tags = posting.groups()
            pairs = dict(tag.split(":", 1) for tag in tags.split(", "))
            transactions[-1].postings.append((account, Decimal(amount), currency, pairs))
        elif line.startswith("account "):
            accounts.append(line.removeprefix("account "))
        elif line.startswith("commodity "):
            _, number, currency = line.split()
            commodities[currency] = number
        else:
            assert not line or line.lstrip().startswith(";") or line == "decimal-mark .", line
    return Journal(transactions, accounts, commodities)
