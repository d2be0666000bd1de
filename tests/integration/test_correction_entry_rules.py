"""What an entry about corrections, recalculations and write-offs may say: once, and as they do."""

from uuid import uuid4

import pytest
from asyncpg import UniqueViolationError

from billing.domain.ledger import LedgerEntryType, PostingRule
from tests.factories.clock import START
from tests.factories.correction_rows import PART, CorrectionRows
from tests.factories.entry_kit import EntryKit, assert_refused, make_entry_kit, rule_of
from tests.factories.ledger_book import Connection, LedgerBook, Row, assert_violates, insert

CORRECTED = rule_of(LedgerEntryType.USAGE_COST_CORRECTED, sign=-1)
DEARER = rule_of(LedgerEntryType.BILLING_ADJUSTMENT, sign=-1)
WRITTEN_OFF = rule_of(LedgerEntryType.RECEIVABLE_WRITTEN_OFF, sign=1)
RECOVERED = rule_of(LedgerEntryType.RECEIVABLE_WRITTEN_OFF, sign=-1)


@pytest.fixture
async def rows(app: Connection, book: LedgerBook) -> CorrectionRows:
    """Rows to add to the book in the test's transaction."""
    return CorrectionRows(app, book)


@pytest.fixture
async def kit(app: Connection, book: LedgerBook) -> EntryKit:
    """All that entries may name."""
    return await make_entry_kit(app, book)


async def add_transaction(connection: Connection, book: LedgerBook) -> Row:
    """Add another ledger transaction of the subscription."""
    transaction = book.scope_columns | {
        "id": uuid4(),
        "subscription_id": book.subscription_id,
        "initiating_source_type": "write_off",
        "initiating_source_id": uuid4(),
        "description": "By hand",
        "created_at": START,
    }
    await insert(connection, "ledger_transactions", transaction)
    return transaction


async def assert_known(connection: Connection, entry: Row, constraint: str) -> None:
    """Assert that there is such an entry already."""
    with pytest.raises(UniqueViolationError) as refusal:
        await insert(connection, "ledger_entries", entry)
    assert_violates(refusal, constraint)


class TestWriteOffs:
    async def test_one_is_posted_once(
        self, app: Connection, book: LedgerBook, kit: EntryKit
    ) -> None:
        """In whatever transaction."""
        other = await add_transaction(app, book)
        await insert(app, "ledger_entries", kit.entry(WRITTEN_OFF))
        for changes in ({}, {"ledger_transaction_id": other["id"]}):
            await assert_known(
                app, kit.entry(WRITTEN_OFF) | changes, "uq_ledger_entries_receivable_written_off"
            )

    async def test_all_of_it_is_posted(self, app: Connection, kit: EntryKit) -> None:
        size = kit.size(WRITTEN_OFF.entry_type)
        for wrong in (size - 1, size + 1):
            await assert_refused(app, kit.entry(WRITTEN_OFF, amount=wrong))
        await insert(app, "ledger_entries", kit.entry(WRITTEN_OFF))

    async def test_it_is_recovered_in_parts_each_once(
        self, app: Connection, book: LedgerBook, kit: EntryKit
    ) -> None:
        part = kit.entry(RECOVERED, amount=-1)
        await insert(app, "ledger_entries", part)
        await assert_known(app, part | {"id": uuid4()}, "uq_ledger_entries_write_off_recovered")
        other = await add_transaction(app, book)
        later = {"id": uuid4(), "ledger_transaction_id": other["id"]}
        await insert(app, "ledger_entries", part | later)

    async def test_no_more_is_recovered_than_was_written_off(
        self, app: Connection, kit: EntryKit
    ) -> None:
        size = kit.size(RECOVERED.entry_type)
        await assert_refused(app, kit.entry(RECOVERED, amount=-size - 1))
        await insert(app, "ledger_entries", kit.entry(RECOVERED, amount=-size))

    @pytest.mark.parametrize("rule", [WRITTEN_OFF, RECOVERED], ids=["written off", "recovered"])
    async def test_it_is_of_its_own_period(
        self, app: Connection, book: LedgerBook, kit: EntryKit, rule: PostingRule
    ) -> None:
        entry = kit.entry(rule)
        await assert_refused(app, entry | {"billing_period_id": book.billed_period_id})


class TestCorrections:
    async def test_it_is_of_an_event_of_its_own_period(
        self, app: Connection, book: LedgerBook, rows: CorrectionRows, kit: EntryKit
    ) -> None:
        """Correction and entry agree, but the event was used in another period."""
        theirs = await rows.add_correction(billing_period_id=book.billed_period_id)
        entry = kit.entry(
            CORRECTED,
            amount=-PART,
            id=theirs["id"],
            source_usage_event_id=theirs["usage_event_id"],
            billing_period_id=book.billed_period_id,
        )
        await assert_refused(app, entry)
        own = {"billing_period_id": book.open_period_id}
        right = await rows.add_correction()
        named = {"id": right["id"], "source_usage_event_id": right["usage_event_id"]}
        await insert(app, "ledger_entries", entry | own | named)

    async def test_it_is_of_the_events_meter(self, app: Connection, kit: EntryKit) -> None:
        entry = kit.entry(CORRECTED, amount=-PART)
        await assert_refused(app, entry | {"usage_meter_id": uuid4()})

    async def test_it_costs_what_its_correction_says(self, app: Connection, kit: EntryKit) -> None:
        entry = kit.entry(CORRECTED, amount=-PART)
        for wrong in (-PART - 1, -PART + 1, 0):
            await assert_refused(app, entry | {"amount": wrong})
        await insert(app, "ledger_entries", entry)


class TestBillingAdjustments:
    async def test_it_is_what_the_calculation_changes(self, app: Connection, kit: EntryKit) -> None:
        entry = kit.entry(DEARER, amount=-PART)
        for wrong in (-PART - 1, -PART + 1):
            await assert_refused(app, entry | {"amount": wrong})
        await insert(app, "ledger_entries", entry)

    async def test_it_is_of_a_recalculation(
        self, app: Connection, rows: CorrectionRows, kit: EntryKit
    ) -> None:
        """An estimate changes nothing yet, whatever it comes to."""
        estimate = await rows.add("calculations", rows.estimate())
        entry = kit.entry(
            DEARER,
            amount=-PART,
            source_billing_period_calculation_id=estimate["id"],
            calculation_run_id=estimate["calculation_run_id"],
        )
        await assert_refused(app, entry | {"amount": -estimate["total_raw_usage_amount"]})

    async def test_there_is_one_of_a_calculation(self, app: Connection, kit: EntryKit) -> None:
        entry = kit.entry(DEARER, amount=-PART)
        await insert(app, "ledger_entries", entry)
        await assert_known(app, entry | {"id": uuid4()}, "uq_ledger_entries_billing_adjustment")
