"""Entries of all types with what they name, as a book's rows have it."""

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
from tests.factories.correction_rows import CorrectionRows
from tests.factories.credit_rows import DIRECTIONS, PART, SURPLUS, TOP_UP, CreditRows
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    Row,
    add_charge,
    add_event,
    insert,
)

DO_NOT_BELONG = "do not belong together"
RULES = sorted(POSTING_RULES)

_PERIOD, _METER = "billing_period_id", "usage_meter_id"
_EVENT, _CHARGE = "source_usage_event_id", "source_charge_id"
_CREDIT, _APPLICATION = "source_usage_credit_id", "source_credit_application_id"
_ADJUSTMENT = "source_credit_balance_adjustment_id"
_PAYMENT, _REFUND = "source_payment_id", "source_refund_id"
_CALCULATION, _WRITE_OFF = "source_billing_period_calculation_id", "source_write_off_id"

NAMED: Mapping[LedgerEntryType, tuple[str, ...]] = {
    LedgerEntryType.USAGE_COST: (_EVENT, _PERIOD, _METER),
    LedgerEntryType.USAGE_COST_CORRECTED: (_EVENT, _PERIOD, _METER),
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
    LedgerEntryType.BILLING_ADJUSTMENT: (_CALCULATION, _PERIOD, _METER),
    LedgerEntryType.RECEIVABLE_WRITTEN_OFF: (_WRITE_OFF, _PERIOD),
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
    corrections: Mapping[int, Row]
    calculations: Mapping[int, Row]

    def size(self, entry_type: LedgerEntryType) -> int:
        """What the amount of an entry of a type is without its sign."""
        if entry_type in _ORIGINS:
            return int(self.promo["issued_amount"])
        return int(self.refund["amount"]) if _REFUND in NAMED[entry_type] else PART

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
        if amount is None:
            amount = self.size(rule.entry_type) * rule.sign
        return (
            self.book.entry(entry_type=rule.entry_type, amount=amount)
            | {_PERIOD: None}
            | named
            | legs
            | self._of_source(rule.entry_type, amount)
            | columns
        )

    def _of_source(self, entry_type: LedgerEntryType, amount: int) -> Row:
        """What an entry has from its source: a correction's has its id."""
        if entry_type is LedgerEntryType.USAGE_COST_CORRECTED:
            correction = self.corrections[amount]
            return {"id": correction["id"], _EVENT: correction["usage_event_id"]}
        if entry_type is LedgerEntryType.BILLING_ADJUSTMENT:
            calculation = self.calculations[amount]
            return {
                _CALCULATION: calculation["id"],
                "calculation_run_id": calculation["calculation_run_id"],
            }
        return {}

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
    rows, corrections = CreditRows(connection, book), CorrectionRows(connection, book)
    promo, surplus = await rows.add_credit(), await rows.add_credit(SURPLUS)
    payment = await rows.add_payment()
    paid = rows.credit(TOP_UP, id=payment["usage_credit_id"])
    refund = await rows.add("refunds", rows.refund(payment))
    dearer, cheaper = await corrections.add_recalculated_twice(PART)
    write_off = await corrections.add("write_offs", corrections.write_off(amount=PART))
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
            _CALCULATION: cheaper["id"],
            _WRITE_OFF: write_off["id"],
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
            for sign in DIRECTIONS
        },
        refund_adjustment=await rows.add_adjustment(paid, refund),
        corrections={
            -change: await corrections.add_correction(cost_change_amount=change)
            for change in (PART, 0, -PART)
        },
        calculations={-PART: dearer, 0: cheaper, PART: cheaper},
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
