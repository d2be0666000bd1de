"""How much an entry about credits, payments and refunds may say, of what: as its sources do."""

from uuid import uuid4

import pytest

from billing.domain.credits import PAID_TYPES, UsageCreditType
from billing.domain.ledger import LedgerAccountKind, LedgerEntryType, PostingRule
from tests.factories.credit_rows import PROMO, SURPLUS, TOP_UP, CreditRows
from tests.factories.entry_kit import (
    NAMED,
    RULES,
    EntryKit,
    assert_refused,
    make_entry_kit,
    rule_of,
)
from tests.factories.ledger_book import Connection, LedgerBook, Row, insert

PAYMENT = rule_of(LedgerEntryType.PAYMENT_RECOGNIZED)
GRANT = rule_of(LedgerEntryType.CREDIT_GRANT_RECOGNIZED)
TO_USAGE = rule_of(LedgerEntryType.CREDIT_APPLIED_TO_USAGE)
TO_CHARGE = rule_of(LedgerEntryType.CREDIT_APPLIED_TO_CHARGE)
REVERSAL = rule_of(LedgerEntryType.CREDIT_APPLICATION_REVERSED)
REFUNDED = rule_of(LedgerEntryType.PAYMENT_REFUNDED)
ABSORBED = rule_of(LedgerEntryType.REFUND_ABSORBED)
ORIGINS = {PAYMENT: TOP_UP, GRANT: PROMO, rule_of(LedgerEntryType.SURPLUS_CREDITED): SURPLUS}
ADJUSTMENTS = [
    rule for rule in RULES if "source_credit_balance_adjustment_id" in NAMED[rule.entry_type]
]
EVERY_ORIGIN = pytest.mark.parametrize("rule", ORIGINS, ids=lambda rule: rule.entry_type)
EVERY_USE = pytest.mark.parametrize(
    "rule", [TO_USAGE, TO_CHARGE, REVERSAL], ids=lambda rule: rule.entry_type
)
EVERY_ADJUSTMENT = pytest.mark.parametrize(
    "rule", ADJUSTMENTS, ids=lambda rule: "-".join(map(str, rule))
)


@pytest.fixture
async def rows(app: Connection, book: LedgerBook) -> CreditRows:
    """Rows to add to the book in the test's transaction."""
    return CreditRows(app, book)


@pytest.fixture
async def kit(app: Connection, book: LedgerBook) -> EntryKit:
    """All that entries may name."""
    return await make_entry_kit(app, book)


async def assert_at_most(connection: Connection, kit: EntryKit, rule: PostingRule) -> None:
    """Assert that an entry may be of a part of its source, but not of more."""
    size = kit.size(rule.entry_type)
    await assert_refused(connection, kit.entry(rule, amount=(size + 1) * rule.sign))
    await insert(connection, "ledger_entries", kit.entry(rule, amount=(size - 1) * rule.sign))


async def assert_exactly(connection: Connection, kit: EntryKit, rule: PostingRule) -> None:
    """Assert that an entry is of all of its source."""
    size = kit.size(rule.entry_type)
    for wrong in (size - 1, size + 1):
        await assert_refused(connection, kit.entry(rule, amount=wrong * rule.sign))
    await insert(connection, "ledger_entries", kit.entry(rule))


def origin(kit: EntryKit, rule: PostingRule, credit: Row) -> Row:
    """The entry by which a credit begins."""
    return kit.entry(rule, source_usage_credit_id=credit["id"], credit_account_id=credit["id"])


class TestOrigins:
    @EVERY_ORIGIN
    async def test_a_credit_begins_with_what_it_was_issued_with(
        self, app: Connection, rows: CreditRows, kit: EntryKit, rule: PostingRule
    ) -> None:
        """Only the credit is of another amount, not what was paid for it."""
        size = kit.size(rule.entry_type)
        for wrong in (size - 1, size + 1):
            credit = await rows.add_credit(ORIGINS[rule], issued_amount=wrong)
            await assert_refused(app, origin(kit, rule, credit))
        await insert(app, "ledger_entries", kit.entry(rule))

    @EVERY_ORIGIN
    async def test_a_credit_begins_in_its_currency(
        self, app: Connection, rows: CreditRows, kit: EntryKit, rule: PostingRule
    ) -> None:
        credit = await rows.add_credit(ORIGINS[rule], currency="EUR")
        await assert_refused(app, origin(kit, rule, credit))

    @EVERY_ORIGIN
    @pytest.mark.parametrize("credit_type", UsageCreditType)
    async def test_a_credit_begins_as_its_type_asks_for(
        self,
        app: Connection,
        rows: CreditRows,
        kit: EntryKit,
        rule: PostingRule,
        credit_type: UsageCreditType,
    ) -> None:
        """Nothing that was paid for is recognized as a grant, and no grant as paid for."""
        fits = credit_type.partition("_")[0] == ORIGINS[rule].partition("_")[0]
        entry = origin(kit, rule, await rows.add_credit(credit_type))
        if fits:
            await insert(app, "ledger_entries", entry)
        else:
            await assert_refused(app, entry)

    async def test_a_payment_is_recognized_with_what_was_paid(
        self, app: Connection, rows: CreditRows, kit: EntryKit
    ) -> None:
        """Only the payment is of another amount, not its credit."""
        for wrong in (-1, 1):
            payment = await rows.add_payment(amount=kit.size(PAYMENT.entry_type) + wrong)
            await assert_refused(app, kit.entry(PAYMENT, source_payment_id=payment["id"]))


class TestUses:
    @pytest.mark.parametrize("rule", [TO_USAGE, TO_CHARGE], ids=lambda rule: rule.entry_type)
    async def test_all_of_a_use_is_entered(
        self, app: Connection, kit: EntryKit, rule: PostingRule
    ) -> None:
        await assert_exactly(app, kit, rule)

    async def test_no_more_is_taken_back_than_was_used(
        self, app: Connection, kit: EntryKit
    ) -> None:
        await assert_at_most(app, kit, REVERSAL)

    @EVERY_USE
    async def test_a_use_in_another_currency(
        self, app: Connection, rows: CreditRows, kit: EntryKit, rule: PostingRule
    ) -> None:
        use = await rows.add_application(kit.promo, to_usage=rule is TO_USAGE, currency="EUR")
        await assert_refused(app, kit.entry(rule, source_credit_application_id=use["id"]))

    @EVERY_USE
    async def test_a_use_of_another_meter_or_of_none(
        self, app: Connection, kit: EntryKit, rule: PostingRule
    ) -> None:
        of_usage, of_charge = (
            {"source_credit_application_id": use["id"]}
            for use in (kit.usage_application, kit.charge_application)
        )
        metered = {"usage_meter_id": kit.sources["usage_meter_id"]}
        other, none = {"usage_meter_id": uuid4()}, {"usage_meter_id": None}
        for wrong in (of_usage | other, of_charge | metered):
            await assert_refused(app, kit.entry(rule) | wrong)
        if rule is not TO_USAGE:
            await assert_refused(app, kit.entry(rule) | of_usage | none)

    async def test_a_use_of_a_meter_is_taken_back_as_one(
        self, app: Connection, kit: EntryKit
    ) -> None:
        use = kit.usage_application
        entry = kit.entry(
            REVERSAL,
            source_credit_application_id=use["id"],
            usage_meter_id=use["usage_meter_id"],
        )
        await insert(app, "ledger_entries", entry)


class TestAdjustments:
    @EVERY_ADJUSTMENT
    async def test_no_more_is_adjusted_than_the_adjustment_says(
        self, app: Connection, kit: EntryKit, rule: PostingRule
    ) -> None:
        await assert_at_most(app, kit, rule)

    @EVERY_ADJUSTMENT
    async def test_an_adjustment_has_its_direction(
        self, app: Connection, rows: CreditRows, kit: EntryKit, rule: PostingRule
    ) -> None:
        """No entry of an increase takes value, and none of a decrease gives it."""
        entry = kit.entry(rule)
        credit = rows.credit(id=entry["source_usage_credit_id"])
        refund = None
        if rule.credit is LedgerAccountKind.REFUND_CLEARING:
            refund = await rows.add_refund()
            entry["source_refund_id"] = refund["id"]
        adjustment = await rows.add_adjustment(credit, refund, sign=-rule.sign)
        entry["source_credit_balance_adjustment_id"] = adjustment["id"]
        await assert_refused(app, entry)

    @pytest.mark.parametrize("credit_type", UsageCreditType)
    async def test_what_is_left_goes_where_the_credit_came_from(
        self, app: Connection, rows: CreditRows, kit: EntryKit, credit_type: UsageCreditType
    ) -> None:
        """Value that was paid for is breakage, given value an expense taken back."""
        credit = await rows.add_credit(credit_type)
        of_credit = {"source_usage_credit_id": credit["id"], "debit_account_id": credit["id"]}
        breakage, expense = (
            kit.entry(rule_of(LedgerEntryType.CREDIT_GRANT_EXPIRED, taker)) | of_credit
            for taker in (LedgerAccountKind.BREAKAGE, LedgerAccountKind.PROMOTIONAL_EXPENSE)
        )
        right, wrong = (breakage, expense) if credit_type in PAID_TYPES else (expense, breakage)
        await assert_refused(app, wrong)
        await insert(app, "ledger_entries", right)


class TestRefunds:
    async def test_all_of_a_refund_is_paid_back(self, app: Connection, kit: EntryKit) -> None:
        await assert_exactly(app, kit, REFUNDED)

    async def test_no_more_is_absorbed_than_is_refunded(
        self, app: Connection, kit: EntryKit
    ) -> None:
        await assert_at_most(app, kit, ABSORBED)
