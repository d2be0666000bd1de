"""The ledger as a journal of hledger (https://hledger.org/hledger.html#journal).

Debits are positive and credits negative, in the currency itself, so every transaction sums to zero.
What one ledger transaction posted at another moment, such as a refund's confirmation, stands as a
transaction of that date. Currencies and accounts are declared beside their first transaction, for
``hledger check --strict``.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from billing.api.converters.ledger import encode_initiating_source
from billing.domain import identifiers
from billing.domain.ledger import LedgerAccountKind, LedgerEntry
from billing.domain.ledger_export import ExportedEntry
from billing.domain.money import decimal_places, in_major_unit

ACCOUNT_NAMES: Final[dict[str, str]] = {
    "receivable": "assets:receivable",
    "refund_clearing": "assets:refund clearing",
    "cash": "assets:cash",
    "credit": "liabilities:credit",
    "usage_revenue": "income:usage",
    "subscription_revenue": "income:subscription",
    "breakage": "income:breakage",
    "promotional_expense": "expenses:promotional",
    "refunds_and_allowances": "expenses:refunds and allowances",
    "bad_debt": "expenses:bad debt",
}
"""What each kind of account is called; those of subscriptions and credits end in an id."""

_BEGINNING: Final = "; Debits are positive, credits negative. Dates are in UTC.\ndecimal-mark .\n"
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class JournalWriter:
    """Writes one journal; entries come ordered by subscription and ledger transaction."""

    def __init__(self) -> None:
        self._currencies: set[str] = set()
        self._shared_accounts: set[str] = set()
        # Those of a subscription come with its entries alone, so they can be forgotten after it.
        self._own_accounts: set[str] = set()
        self._undeclared: list[str] = []
        self._subscription_id: UUID | None = None
        self._open: tuple[UUID, datetime] | None = None

    def begin(self) -> str:
        """Return what stands before all entries."""
        return _BEGINNING

    def lines(self, entries: Iterable[ExportedEntry]) -> Iterator[str]:
        """Yield the lines of the entries that come next."""
        for exported in entries:
            entry = exported.entry
            assert entry.posted_at is not None, "a journal has posted entries alone"
            key = (entry.ledger_transaction_id, entry.posted_at)
            if key != self._open:
                self._open = key
                yield self.end()
                yield "\n"
                yield from self._commodity(entry)
                yield _heading(exported, entry.posted_at)
            debit = _account_name(entry, entry.debit_account_kind, entry.debit_account_id)
            credit = _account_name(entry, entry.credit_account_kind, entry.credit_account_id)
            self._note_accounts(entry, debit, credit)
            amount_minor = abs(entry.amount_minor)
            yield _posting(debit, amount_minor, entry)
            yield _posting(credit, -amount_minor, entry)

    def end(self) -> str:
        """Return the declarations of the accounts that were new in the transaction before."""
        lines = "".join(f"\naccount {name}" for name in self._undeclared)
        self._undeclared.clear()
        return f"{lines}\n" if lines else ""

    def _commodity(self, entry: LedgerEntry) -> Iterator[str]:
        """A subscription has one currency, so a new one comes with a transaction's first entry."""
        if entry.currency not in self._currencies:
            self._currencies.add(entry.currency)
            places = decimal_places(entry.currency)
            yield f"commodity 1000.{'0' * places} {entry.currency}\n\n"

    def _note_accounts(self, entry: LedgerEntry, *names: str) -> None:
        if entry.subscription_id != self._subscription_id:
            self._subscription_id = entry.subscription_id
            self._own_accounts.clear()
        for name in names:
            is_shared = name in ACCOUNT_NAMES.values()
            declared = self._shared_accounts if is_shared else self._own_accounts
            if name not in declared:
                declared.add(name)
                self._undeclared.append(name)


def _account_name(entry: LedgerEntry, kind: LedgerAccountKind, account_id: UUID) -> str:
    name = ACCOUNT_NAMES[kind]
    if kind is LedgerAccountKind.CREDIT:
        return f"{name}:{identifiers.to_typeid(identifiers.USAGE_CREDIT, account_id)}"
    if kind in (LedgerAccountKind.RECEIVABLE, LedgerAccountKind.REFUND_CLEARING):
        return f"{name}:{identifiers.to_typeid(identifiers.SUBSCRIPTION, entry.subscription_id)}"
    return name


def _heading(exported: ExportedEntry, posted_at: datetime) -> str:
    entry = exported.entry
    transaction_id = identifiers.to_typeid(
        identifiers.LEDGER_TRANSACTION, entry.ledger_transaction_id
    )
    source_type = exported.initiating_source_type
    tags = {
        "posted_at": posted_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "source_type": source_type.value,
        "source_id": encode_initiating_source(source_type, exported.initiating_source_id),
        "subscription_id": identifiers.to_typeid(identifiers.SUBSCRIPTION, entry.subscription_id),
    }
    comment = ", ".join(f"{name}:{value}" for name, value in tags.items())
    date = posted_at.astimezone(UTC).date().isoformat()
    description = _one_line(exported.transaction_description)
    return f"{date} * ({transaction_id}) {description}\n    ; {comment}\n"


def _posting(account: str, amount_minor: int, entry: LedgerEntry) -> str:
    entry_id = identifiers.to_typeid(identifiers.LEDGER_ENTRY, entry.id)
    amount = f"{in_major_unit(amount_minor, entry.currency)} {entry.currency}"
    return f"    {account}  {amount}  ; entry_id:{entry_id}, entry_type:{entry.entry_type}\n"


def _one_line(text: str) -> str:
    """Leave out what a description would end at: a line's end, a comment, hledger's payee."""
    return _UNPRINTABLE.sub(" ", text).replace(";", ",").replace("|", "/").strip()
