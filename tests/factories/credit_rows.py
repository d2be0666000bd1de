"""Rows of credits, payments and refunds to add to a book by hand, and entries that fit them."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import pytest
from asyncpg import IntegrityConstraintViolationError

from billing.domain.ledger import (
    POSTING_RULES,
    TENANT_ACCOUNT_KINDS,
    LedgerAccountKind,
    LedgerEntryType,
    PostingRule,
)
from tests.factories.clock import START
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    Row,
    add_charge,
    add_event,
    insert,
)

PROMO, TOP_UP, SURPLUS = "granted_promo", "payment_top_up", "surplus"
DO_NOT_BELONG = "do not belong together"
RULES = sorted(POSTING_RULES)

_PART = 7

_PERIOD, _METER = "billing_period_id", "usage_meter_id"
_EVENT, _CHARGE = "source_usage_event_id", "source_charge_id"
_CREDIT, _APPLICATION = "source_usage_credit_id", "source_credit_application_id"
_ADJUSTMENT = "source_credit_balance_adjustment_id"
_PAYMENT, _REFUND = "source_payment_id", "source_refund_id"

NAMED: Mapping[LedgerEntryType, tuple[str, ...]] = {
    LedgerEntryType.USAGE_COST: (_EVENT, _PERIOD, _METER),
    LedgerEntryType.CHARGE_BILLED: (_CHARGE, _PERIOD),
    LedgerEntryType.PAYMENT_RECOGNIZED: (_PAYMENT, _CREDIT),
    LedgerEntryType.CREDIT_GRANT_RECOGNIZED: (_CREDIT,),
    LedgerEntryType.SURPLUS_CREDITED: (_CREDIT, _PERIOD),
    LedgerEntryType.CREDIT_APPLIED_TO_USAGE: (_CREDIT, _APPLICATION, _PERIOD, _METER),
    LedgerEntryType.CREDIT_APPLIED_TO_CHARGE: (_CREDIT, _APPLICATION, _PERIOD),
    LedgerEntryType.CREDIT_APPLICATION_REVERSED: (_CREDIT, _APPLICATION, _PERIOD),
    LedgerEntryType.CREDIT_BALANCE_ADJUSTED: (_CREDIT, _ADJUSTMENT),
    LedgerEntryType.CREDIT_DEFICIT_CHARGED: (_CREDIT, _ADJUSTMENT, _PERIOD),
    LedgerEntryType.CREDIT_GRANT_EXPIRED: (_CREDIT,),
    LedgerEntryType.PAYMENT_REFUNDED: (_PAYMENT, _REFUND),
    LedgerEntryType.REFUND_ABSORBED: (_REFUND,),
}
"""What an entry of a type must name."""

MAY_NAME_A_REFUND = {
    LedgerEntryType.CREDIT_BALANCE_ADJUSTED,
    LedgerEntryType.CREDIT_DEFICIT_CHARGED,
}

_ORIGINS = {
    LedgerEntryType.PAYMENT_RECOGNIZED,
    LedgerEntryType.CREDIT_GRANT_RECOGNIZED,
    LedgerEntryType.SURPLUS_CREDITED,
}
_DIRECTIONS = {1: "increase", -1: "decrease"}


@dataclass(frozen=True)
class CreditRows:
    """Adds rows to a book in a transaction, each valid unless the columns say otherwise."""

    connection: Connection
    book: LedgerBook

    async def account(
        self, kind: str, *, account_id: UUID | None = None, subscription_id: UUID | None = None
    ) -> UUID:
        """Add an account in dollars, and return its id."""
        row = self.book.scope_columns | {
            "id": account_id or uuid.uuid4(),
            "kind": kind,
            "currency": "USD",
            "subscription_id": subscription_id,
            "created_at": START,
        }
        await insert(self.connection, "ledger_accounts", row)
        return UUID(str(row["id"]))

    def credit(self, credit_type: str = PROMO, **columns: object) -> Row:
        """A new credit over 100."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "subscription_id": self.book.subscription_id,
                "credit_type": credit_type,
                "issued_amount": 100,
                "currency": "USD",
                "priority": 0,
                "covers_charges": False,
                "effective_at": START,
                "issued_at": START,
                "initial_status": "granted_active",
                "updated_at": START,
            }
            | columns
        )

    async def add_credit(self, credit_type: str = PROMO, **columns: object) -> Row:
        """Add a credit with its account and its balance."""
        row = self.credit(credit_type, **columns)
        await self.account("credit", account_id=row["id"], subscription_id=row["subscription_id"])
        await insert(self.connection, "usage_credits", row)
        await insert(self.connection, "usage_credit_balances", self.balance(row))
        return row

    def balance(self, credit: Row, **columns: object) -> Row:
        """The balance of an untouched credit."""
        return (
            self.book.scope_columns
            | {
                "usage_credit_id": credit["id"],
                "subscription_id": credit["subscription_id"],
                "status": "available",
                "remaining_amount": credit["issued_amount"],
                "held_amount": 0,
                "updated_at": START,
            }
            | columns
        )

    def application(self, credit: Row, *, to_usage: bool = False, **columns: object) -> Row:
        """A use of a credit in the open period, on a charge unless told."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "subscription_id": credit["subscription_id"],
                "usage_credit_id": credit["id"],
                "kind": "run",
                "calculation_run_id": uuid.uuid4(),
                "billing_period_id": self.book.open_period_id,
                "component_id": self.book.component_id if to_usage else None,
                "usage_meter_id": self.book.usage_meter_id if to_usage else None,
                "amount_applied": _PART,
                "currency": "USD",
                "applied_at": START,
                "ledger_transaction_id": self.book.ledger_transaction_id,
            }
            | columns
        )

    def adjustment(
        self, credit: Row, refund: Row | None = None, *, sign: int = -1, **columns: object
    ) -> Row:
        """A decrease of a credit unless told: due to a refund, or an administrator's."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "subscription_id": credit["subscription_id"],
                "usage_credit_id": credit["id"],
                "adjustment_type": "clawback_refund" if refund else "admin_reduction",
                "direction": _DIRECTIONS[sign],
                "amount_adjusted": _PART,
                "deficit_amount": 0,
                "currency": "USD",
                "reason": "By hand",
                "source_refund_id": refund["id"] if refund else None,
                "adjustment_initiated_at": START,
                "ledger_transaction_id": self.book.ledger_transaction_id,
            }
            | columns
        )

    def payment(self, **columns: object) -> Row:
        """A pending top-up of 100."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "subscription_id": self.book.subscription_id,
                "purpose": "top_up",
                "amount": 100,
                "currency": "USD",
                "status": "pending",
                "created_at": START,
                "updated_at": START,
            }
            | columns
        )

    async def add_payment(self, **columns: object) -> Row:
        """Add a confirmed payment with its credit."""
        subscription_id = columns.get("subscription_id", self.book.subscription_id)
        credit = await self.add_credit(TOP_UP, subscription_id=subscription_id)
        row = self.payment(
            **{
                "status": "succeeded",
                "usage_credit_id": credit["id"],
                "processor_transaction_id": uuid.uuid4().hex,
                "processed_at": START,
                **columns,
            }
        )
        await insert(self.connection, "payments", row)
        return row

    def refund(self, payment: Row, **columns: object) -> Row:
        """A pending refund of 60."""
        return (
            self.book.scope_columns
            | {
                "id": uuid.uuid4(),
                "payment_id": payment["id"],
                "subscription_id": payment["subscription_id"],
                "amount": 60,
                "currency": "USD",
                "status": "pending",
                "credit_policy": "revert_unused",
                "clawed_back_amount": 0,
                "reversed_amount": 0,
                "deficit_amount": 0,
                "ledger_transaction_id": self.book.ledger_transaction_id,
                "created_at": START,
                "updated_at": START,
            }
            | columns
        )

    async def add_refund(self, **columns: object) -> Row:
        """Add a pending refund of a new payment."""
        payment = await self.add_payment(**columns)
        return await self.add("refunds", self.refund(payment))

    async def add_application(
        self, credit: Row, *, to_usage: bool = False, **columns: object
    ) -> Row:
        """Add a use of a credit."""
        row = self.application(credit, to_usage=to_usage, **columns)
        return await self.add("usage_credit_applications", row)

    async def add_adjustment(
        self, credit: Row, refund: Row | None = None, *, sign: int = -1
    ) -> Row:
        """Add an adjustment of a credit."""
        row = self.adjustment(credit, refund, sign=sign)
        return await self.add("usage_credit_balance_adjustments", row)

    async def add(self, table: str, row: Row) -> Row:
        """Add a row to a table, and return it."""
        await insert(self.connection, table, row)
        return row


@dataclass(frozen=True)
class EntryKit:
    """Makes entries of all types that agree with their sources, which are there and have none yet.

    All credits were issued with the amount of the payment; all uses and adjustments are of another.
    """

    book: LedgerBook
    accounts: Mapping[LedgerAccountKind, UUID]
    sources: Mapping[str, UUID]
    promo: Row
    paid: Row
    surplus: Row
    refund: Row
    usage_application: Row
    charge_application: Row
    adjustments: Mapping[tuple[UUID, int], Row]
    refund_adjustment: Row

    def size(self, entry_type: LedgerEntryType) -> int:
        """What the amount of an entry of a type is without its sign."""
        if entry_type in _ORIGINS:
            return int(self.promo["issued_amount"])
        return int(self.refund["amount"]) if _REFUND in NAMED[entry_type] else _PART

    def entry(self, rule: PostingRule, *, amount: int | None = None, **columns: object) -> Row:
        """A pending entry that a rule asks for, with the amount of its source unless told."""
        for_refund = rule.credit is LedgerAccountKind.REFUND_CLEARING
        to_usage = _METER in NAMED[rule.entry_type]
        credit = self._credit(rule)
        adjustment = self.adjustments[credit["id"], rule.sign]
        own = {
            _CREDIT: credit["id"],
            _APPLICATION: (self.usage_application if to_usage else self.charge_application)["id"],
            _ADJUSTMENT: (self.refund_adjustment if for_refund else adjustment)["id"],
        }
        named = {column: {**self.sources, **own}[column] for column in NAMED[rule.entry_type]}
        if for_refund and rule.entry_type in MAY_NAME_A_REFUND:
            named[_REFUND] = self.refund["id"]
        legs = {
            "debit_account_id": self._account(rule.debit, credit),
            "credit_account_id": self._account(rule.credit, credit),
        }
        if rule.debit is rule.credit is LedgerAccountKind.CREDIT:
            legs["credit_account_id"] = (self.promo if credit is self.paid else self.paid)["id"]
        size = self.size(rule.entry_type)
        return (
            self.book.entry(entry_type=rule.entry_type, amount=size * rule.sign)
            | {_PERIOD: None}
            | named
            | legs
            | ({} if amount is None else {"amount": amount})
            | columns
        )

    def _account(self, kind: LedgerAccountKind, credit: Row) -> UUID:
        if kind is LedgerAccountKind.CREDIT:
            return UUID(str(credit["id"]))
        return self.accounts[kind]

    def _credit(self, rule: PostingRule) -> Row:
        """The credit whose origin fits the type, or else the accounts."""
        match rule.entry_type:
            case LedgerEntryType.SURPLUS_CREDITED:
                return self.surplus
            case LedgerEntryType.PAYMENT_RECOGNIZED:
                return self.paid
            case LedgerEntryType.CREDIT_GRANT_RECOGNIZED:
                return self.promo
        if _APPLICATION in NAMED[rule.entry_type]:
            return self.promo
        of_paid = {LedgerAccountKind.BREAKAGE, LedgerAccountKind.REFUND_CLEARING} & {*rule}
        return self.paid if of_paid else self.promo


async def make_entry_kit(connection: Connection, book: LedgerBook) -> EntryKit:
    """Add all that entries may name to the book's subscription."""
    rows = CreditRows(connection, book)
    promo, surplus = await rows.add_credit(), await rows.add_credit(SURPLUS)
    payment = await rows.add_payment()
    paid = rows.credit(TOP_UP, id=payment["usage_credit_id"])
    refund = await rows.add("refunds", rows.refund(payment))
    accounts: dict[LedgerAccountKind, UUID] = {
        kind: book.revenue_id(kind) for kind in TENANT_ACCOUNT_KINDS
    }
    for kind in (LedgerAccountKind.RECEIVABLE, LedgerAccountKind.REFUND_CLEARING):
        accounts[kind] = book.accounts[kind, "USD", book.subscription_id]
    return EntryKit(
        book=book,
        accounts=accounts,
        sources={
            _EVENT: await add_event(connection, book),
            _CHARGE: await add_charge(connection, book),
            _PAYMENT: payment["id"],
            _REFUND: refund["id"],
            _PERIOD: book.open_period_id,
            _METER: book.usage_meter_id,
        },
        promo=promo,
        paid=paid,
        surplus=surplus,
        refund=refund,
        usage_application=await rows.add_application(promo, to_usage=True),
        charge_application=await rows.add_application(promo),
        adjustments={
            (credit["id"], sign): await rows.add_adjustment(credit, sign=sign)
            for credit in (promo, paid, surplus)
            for sign in _DIRECTIONS
        },
        refund_adjustment=await rows.add_adjustment(paid, refund),
    )


def rule_of(
    entry_type: LedgerEntryType, *kinds: LedgerAccountKind, sign: int | None = None
) -> PostingRule:
    """The rule of a type that has only one, or that one whose accounts are of the kinds."""
    [rule] = [
        rule
        for rule in RULES
        if rule.entry_type is entry_type and {*kinds} <= {*rule} and sign in (None, rule.sign)
    ]
    return rule


async def assert_refused(connection: Connection, entry: Row, *, match: str = DO_NOT_BELONG) -> None:
    """Assert that the guard of entries refuses this one."""
    with pytest.raises(IntegrityConstraintViolationError, match=match):
        await insert(connection, "ledger_entries", entry)
