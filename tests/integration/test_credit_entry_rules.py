"""What an entry about credits, payments and refunds may say: its sources, and whose they are."""

from uuid import UUID, uuid4

import pytest
from asyncpg import CheckViolationError, UniqueViolationError

from billing.domain.ledger import LedgerAccountKind, LedgerEntryType, PostingRule
from billing.store.tables import LEDGER_ENTRY_SOURCES
from tests.factories.credit_rows import PROMO, SURPLUS, TOP_UP, CreditRows
from tests.factories.entry_kit import (
    MAY_NAME_A_REFUND,
    NAMED,
    RULES,
    EntryKit,
    assert_refused,
    make_entry_kit,
    rule_of,
)
from tests.factories.ledger_book import (
    Connection,
    LedgerBook,
    Row,
    assert_violates,
    attempt,
    insert,
)

EVERY_RULE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: "-".join(map(str, rule)))
OF_CREDITS = [
    rule
    for rule in RULES
    if rule.entry_type not in {LedgerEntryType.USAGE_COST, LedgerEntryType.CHARGE_BILLED}
]
SOMETHING = UUID("7d444840-9dc0-41d1-b245-5ffdce74fad2")
DISCARD = "UPDATE ledger_entries SET discarded_at = now() WHERE id = $1"


@pytest.fixture
async def rows(app: Connection, book: LedgerBook) -> CreditRows:
    """Rows to add to the book in the test's transaction."""
    return CreditRows(app, book)


@pytest.fixture
async def kit(app: Connection, book: LedgerBook) -> EntryKit:
    """All that entries may name."""
    return await make_entry_kit(app, book)


class TestSources:
    @EVERY_RULE
    async def test_each_type_has_its_sources_and_no_others(
        self, app: Connection, kit: EntryKit, rule: PostingRule
    ) -> None:
        entry = kit.entry(rule)
        wrong: list[Row] = [{column: None} for column in NAMED[rule.entry_type]]
        may_name = {*NAMED[rule.entry_type]}
        if rule.entry_type in MAY_NAME_A_REFUND:
            may_name.add("source_refund_id")
        wrong += [{other: SOMETHING} for other in LEDGER_ENTRY_SOURCES if other not in may_name]
        assert len(wrong) >= len(LEDGER_ENTRY_SOURCES) - 1
        for changes in wrong:
            with pytest.raises(CheckViolationError) as refusal:
                await insert(app, "ledger_entries", entry | changes)
            assert_violates(refusal, "ck_ledger_entries_entry_type")
        await insert(app, "ledger_entries", entry)

    @pytest.mark.parametrize("source", [s for s in LEDGER_ENTRY_SOURCES if "event" not in s])
    async def test_what_an_entry_names_exists(
        self, app: Connection, kit: EntryKit, source: str
    ) -> None:
        """A foreign key, or the same trigger that looks whether sources belong together."""
        naming = [rule for rule in OF_CREDITS if source in kit.entry(rule)]
        for rule in naming:
            await assert_refused(app, kit.entry(rule) | {source: SOMETHING}, match=rule.entry_type)
        assert (naming == []) == (source == "source_charge_id")

    @pytest.mark.parametrize("rule", OF_CREDITS, ids=lambda rule: "-".join(map(str, rule)))
    async def test_no_leg_is_of_another_subscription(
        self, app: Connection, book: LedgerBook, kit: EntryKit, rule: PostingRule
    ) -> None:
        for leg, kind in (("debit_account_id", rule.debit), ("credit_account_id", rule.credit)):
            theirs = book.accounts.get((kind, "USD", book.other_subscription_id))
            if theirs is not None:
                await assert_refused(app, kit.entry(rule) | {leg: theirs}, match="cannot debit")

    @pytest.mark.parametrize("rule", OF_CREDITS, ids=lambda rule: "-".join(map(str, rule)))
    async def test_the_credit_that_moves_is_the_one_that_is_named(
        self, app: Connection, rows: CreditRows, kit: EntryKit, rule: PostingRule
    ) -> None:
        another = await rows.add_credit()
        for leg, kind in (("debit_account_id", rule.debit), ("credit_account_id", rule.credit)):
            if kind is LedgerAccountKind.CREDIT:
                entry = kit.entry(rule) | {leg: another["id"]}
                await assert_refused(app, entry, match="cannot debit")


class TestNaturalKeys:
    @pytest.mark.parametrize(
        ("rule", "constraint"),
        [
            (rule_of(LedgerEntryType.CREDIT_GRANT_RECOGNIZED), "uq_ledger_entries_credit_origin"),
            (rule_of(LedgerEntryType.SURPLUS_CREDITED), "uq_ledger_entries_credit_origin"),
            (rule_of(LedgerEntryType.PAYMENT_RECOGNIZED), "uq_ledger_entries_credit_origin"),
            (rule_of(LedgerEntryType.CREDIT_APPLIED_TO_USAGE), "uq_ledger_entries_credit_applied"),
            (rule_of(LedgerEntryType.CREDIT_APPLIED_TO_CHARGE), "uq_ledger_entries_credit_applied"),
            (
                rule_of(LedgerEntryType.CREDIT_GRANT_EXPIRED, LedgerAccountKind.BREAKAGE),
                "uq_ledger_entries_credit_grant_expired",
            ),
            (rule_of(LedgerEntryType.PAYMENT_REFUNDED), "uq_ledger_entries_payment_refunded"),
            (rule_of(LedgerEntryType.REFUND_ABSORBED), "uq_ledger_entries_refund_absorbed"),
        ],
        ids=str,
    )
    async def test_there_is_one_for_ever(
        self, app: Connection, kit: EntryKit, rule: PostingRule, constraint: str
    ) -> None:
        """Also after the first one was discarded."""
        first = kit.entry(rule)
        await insert(app, "ledger_entries", first)
        await attempt(app, DISCARD, first["id"])

        with pytest.raises(UniqueViolationError) as refusal:
            await insert(app, "ledger_entries", kit.entry(rule))
        assert_violates(refusal, constraint)

    async def test_a_credit_has_one_origin_of_any_type(
        self, app: Connection, rows: CreditRows, kit: EntryKit
    ) -> None:
        origins = {
            rule_of(LedgerEntryType.CREDIT_GRANT_RECOGNIZED): PROMO,
            rule_of(LedgerEntryType.SURPLUS_CREDITED): SURPLUS,
            rule_of(LedgerEntryType.PAYMENT_RECOGNIZED): TOP_UP,
        }
        for first, credit_type in origins.items():
            credit_id = (await rows.add_credit(credit_type))["id"]
            of_credit = {"source_usage_credit_id": credit_id, "credit_account_id": credit_id}
            payment = await rows.add_payment()
            of_payment = of_credit | {"source_payment_id": payment["id"]}

            def origin(rule: PostingRule, told: Row = of_credit, paid: Row = of_payment) -> Row:
                is_paid = rule.entry_type is LedgerEntryType.PAYMENT_RECOGNIZED
                return kit.entry(rule) | (paid if is_paid else told)

            await insert(app, "ledger_entries", origin(first))
            for second in origins:
                with pytest.raises(UniqueViolationError) as refusal:
                    await insert(app, "ledger_entries", origin(second))
                assert_violates(refusal, "uq_ledger_entries_credit_origin")

    async def test_a_payment_is_recognized_once(
        self, app: Connection, rows: CreditRows, kit: EntryKit
    ) -> None:
        """Whatever credit it would become."""
        rule = rule_of(LedgerEntryType.PAYMENT_RECOGNIZED)
        await insert(app, "ledger_entries", kit.entry(rule))
        credit_id = (await rows.add_credit("payment_top_up"))["id"]
        again = {"source_usage_credit_id": credit_id, "credit_account_id": credit_id}

        with pytest.raises(UniqueViolationError) as refusal:
            await insert(app, "ledger_entries", kit.entry(rule) | again)
        assert_violates(refusal, "uq_ledger_entries_payment_recognized")

    async def test_a_use_is_of_usage_or_of_a_charge(self, app: Connection, kit: EntryKit) -> None:
        use = kit.entry(rule_of(LedgerEntryType.CREDIT_APPLIED_TO_USAGE))
        await insert(app, "ledger_entries", use)

        again = kit.entry(
            rule_of(LedgerEntryType.CREDIT_APPLIED_TO_CHARGE),
            source_credit_application_id=use["source_credit_application_id"],
            usage_meter_id=use["usage_meter_id"],
        )
        with pytest.raises(UniqueViolationError) as refusal:
            await insert(app, "ledger_entries", again)
        assert_violates(refusal, "uq_ledger_entries_credit_applied")

    async def test_a_credit_may_expire_again_in_another_transaction(
        self, app: Connection, book: LedgerBook, kit: EntryKit
    ) -> None:
        """Value may come back to an expired credit."""
        rule = rule_of(LedgerEntryType.CREDIT_GRANT_EXPIRED, LedgerAccountKind.BREAKAGE)
        transaction = book.scope_columns | {
            "id": uuid4(),
            "subscription_id": book.subscription_id,
            "initiating_source_type": "credit_expiration",
            "initiating_source_id": uuid4(),
            "description": "By hand",
            "created_at": kit.entry(rule)["entry_timestamp"],
        }
        await insert(app, "ledger_transactions", transaction)

        await insert(app, "ledger_entries", kit.entry(rule))
        again = kit.entry(rule, ledger_transaction_id=transaction["id"])
        await insert(app, "ledger_entries", again)

    async def test_what_may_happen_several_times(self, app: Connection, kit: EntryKit) -> None:
        """A use is reversed, and a credit adjusted, in parts."""
        for entry_type in (
            LedgerEntryType.CREDIT_APPLICATION_REVERSED,
            LedgerEntryType.CREDIT_BALANCE_ADJUSTED,
            LedgerEntryType.CREDIT_DEFICIT_CHARGED,
        ):
            for rule in (rule for rule in RULES if rule.entry_type is entry_type):
                parts = [kit.entry(rule, amount=part * rule.sign) for part in (3, 4)]
                await insert(app, "ledger_entries", *parts)


OF_APPLICATIONS = [rule for rule in OF_CREDITS if "source_credit_application_id" in NAMED[rule[0]]]
OF_ADJUSTMENTS = [
    rule for rule in OF_CREDITS if "source_credit_balance_adjustment_id" in NAMED[rule[0]]
]
OF_PERIODS = [rule for rule in OF_CREDITS if "billing_period_id" in NAMED[rule[0]]]


class TestBelongingTogether:
    @pytest.mark.parametrize("rule", OF_APPLICATIONS, ids=lambda rule: str(rule.entry_type))
    async def test_another_credits_use(
        self, app: Connection, rows: CreditRows, kit: EntryKit, rule: PostingRule
    ) -> None:
        to_usage = rule.entry_type is LedgerEntryType.CREDIT_APPLIED_TO_USAGE
        application = await rows.add_application(kit.paid, to_usage=to_usage)
        entry = kit.entry(rule, source_credit_application_id=application["id"])
        await assert_refused(app, entry)

    @pytest.mark.parametrize("rule", OF_ADJUSTMENTS, ids=lambda rule: "-".join(map(str, rule)))
    async def test_another_credits_adjustment(
        self, app: Connection, rows: CreditRows, kit: EntryKit, rule: PostingRule
    ) -> None:
        """Of the same refund, where there is one."""
        entry = kit.entry(rule)
        if entry.get("source_refund_id"):
            refund = await rows.add_refund()
            adjustment = await rows.add_adjustment(kit.promo, refund)
            entry["source_refund_id"] = refund["id"]
        else:
            adjustment = await rows.add_adjustment(await rows.add_credit(), sign=rule.sign)
        entry["source_credit_balance_adjustment_id"] = adjustment["id"]
        await assert_refused(app, entry)

    @pytest.mark.parametrize("rule", OF_ADJUSTMENTS, ids=lambda rule: "-".join(map(str, rule)))
    async def test_an_adjustment_of_another_refund_or_of_none(
        self, app: Connection, rows: CreditRows, kit: EntryKit, rule: PostingRule
    ) -> None:
        entry = kit.entry(rule)
        refund = await rows.add_refund()
        if entry.get("source_refund_id"):
            changes = [
                {"source_refund_id": refund["id"]},
                {"source_credit_balance_adjustment_id": kit.adjustments[kit.paid["id"], -1]["id"]},
            ]
        else:
            credit = rows.credit(id=entry["source_usage_credit_id"])
            adjustment = await rows.add_adjustment(credit, refund, sign=rule.sign)
            changes = [{"source_credit_balance_adjustment_id": adjustment["id"]}]
        for change in changes:
            await assert_refused(app, entry | change)

    @pytest.mark.parametrize("rule", OF_PERIODS, ids=lambda rule: "-".join(map(str, rule)))
    async def test_another_subscriptions_period(
        self, app: Connection, book: LedgerBook, kit: EntryKit, rule: PostingRule
    ) -> None:
        entry = kit.entry(rule, billing_period_id=book.other_period_id)
        await assert_refused(app, entry)

    @pytest.mark.parametrize("rule", OF_APPLICATIONS, ids=lambda rule: str(rule.entry_type))
    async def test_a_use_in_another_period(
        self, app: Connection, book: LedgerBook, kit: EntryKit, rule: PostingRule
    ) -> None:
        entry = kit.entry(rule, billing_period_id=book.billed_period_id)
        await assert_refused(app, entry)

    async def test_another_subscriptions_payment(
        self, app: Connection, book: LedgerBook, rows: CreditRows, kit: EntryKit
    ) -> None:
        theirs = await rows.add_payment(subscription_id=book.other_subscription_id)
        for entry_type in (LedgerEntryType.PAYMENT_RECOGNIZED, LedgerEntryType.PAYMENT_REFUNDED):
            entry = kit.entry(rule_of(entry_type), source_payment_id=theirs["id"])
            await assert_refused(app, entry)

    async def test_another_payments_refund(
        self, app: Connection, book: LedgerBook, rows: CreditRows, kit: EntryKit
    ) -> None:
        """Of the same subscription, and of another."""
        rule = rule_of(LedgerEntryType.PAYMENT_REFUNDED)
        for subscription_id in (book.subscription_id, book.other_subscription_id):
            refund = await rows.add_refund(subscription_id=subscription_id)
            entry = kit.entry(rule, source_refund_id=refund["id"])
            await assert_refused(app, entry)

    async def test_another_subscriptions_refund(
        self, app: Connection, book: LedgerBook, rows: CreditRows, kit: EntryKit
    ) -> None:
        refund = await rows.add_refund(subscription_id=book.other_subscription_id)
        rule = rule_of(LedgerEntryType.REFUND_ABSORBED)
        await assert_refused(app, kit.entry(rule, source_refund_id=refund["id"]))

    async def test_another_subscriptions_credit(
        self, app: Connection, book: LedgerBook, rows: CreditRows, kit: EntryKit
    ) -> None:
        """No account of the credit is in a deficit: only the sources tell."""
        theirs = await rows.add_credit(subscription_id=book.other_subscription_id)
        adjustment = await rows.add_adjustment(theirs)
        rule = rule_of(
            LedgerEntryType.CREDIT_DEFICIT_CHARGED, LedgerAccountKind.PROMOTIONAL_EXPENSE
        )
        entry = kit.entry(
            rule,
            source_usage_credit_id=theirs["id"],
            source_credit_balance_adjustment_id=adjustment["id"],
        )
        await assert_refused(app, entry)

    @pytest.mark.parametrize(
        "entry_type",
        [LedgerEntryType.CREDIT_BALANCE_ADJUSTED, LedgerEntryType.CREDIT_GRANT_EXPIRED],
    )
    async def test_what_nobody_used_goes_where_the_credit_came_from(
        self, app: Connection, kit: EntryKit, entry_type: LedgerEntryType
    ) -> None:
        """Breakage is of paid credits, the promotional expense of given ones."""
        kinds = LedgerAccountKind
        for taker, credit in (
            (kinds.BREAKAGE, kit.promo),
            (kinds.PROMOTIONAL_EXPENSE, kit.paid),
            (kinds.PROMOTIONAL_EXPENSE, kit.surplus),
        ):
            entry = kit.entry(rule_of(entry_type, taker, sign=-1)) | {
                "debit_account_id": credit["id"],
                "source_usage_credit_id": credit["id"],
            }
            if entry_type is LedgerEntryType.CREDIT_BALANCE_ADJUSTED:
                adjustment = kit.adjustments[credit["id"], -1]
                entry["source_credit_balance_adjustment_id"] = adjustment["id"]
            await assert_refused(app, entry)

    @pytest.mark.parametrize("rule", OF_ADJUSTMENTS, ids=lambda rule: "-".join(map(str, rule)))
    async def test_a_refund_has_to_do_with_refund_clearing_alone(
        self, app: Connection, kit: EntryKit, rule: PostingRule
    ) -> None:
        for_refund = rule.credit is LedgerAccountKind.REFUND_CLEARING
        refund_id = None if for_refund else kit.sources["source_refund_id"]
        entry = kit.entry(rule) | {"source_refund_id": refund_id}
        await assert_refused(app, entry, match="cannot debit")
