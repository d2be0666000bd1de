"""AuditLedger finds nothing in healthy books, and each damage by its name, ids and figures."""

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import ledger_audit_pb2 as pb
from tests.factories.audited_books import damage, rich_books
from tests.factories.book_audit import (
    assert_books_agree,
    audit_page,
    audit_pages,
    findings_of,
    word,
)
from tests.factories.book_damages import CASES
from tests.factories.book_damages_of_entries import Case
from tests.factories.book_damages_of_recalculations import RECALCULATED
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.recalculated_books import recalculated_books


async def test_healthy_books_have_no_finding_after_any_operation(
    client: BillingClient, clock: FakeClock
) -> None:
    audits_count = 0

    async def audit() -> None:
        nonlocal audits_count
        audits_count += 1
        await assert_books_agree(client)

    customer = await rich_books(client, clock, after_each=audit)

    assert audits_count >= 30
    (page,) = await audit_pages(client)
    assert {word(result.check) for result in page.checks} == {
        word(check) for check in pb.LedgerAuditCheck.values() if check
    }
    assert page.subscription_count == 1
    assert page.invoice_count == 1
    types = {entry.entry_type for entry in await customer.entries()}
    assert len(types) >= 12, "the books are not rich: an entry type is missing"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_damage_is_found(
    client: BillingClient, clock: FakeClock, database_url: str, case: Case
) -> None:
    customer = await rich_books(client, clock)
    damaged_id = await damage(database_url, client, case.damage)
    await assert_named(client, case, customer.subscription_id, damaged_id)


async def test_recalculated_books_have_no_finding_after_any_operation(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    audits_count = 0

    async def audit() -> None:
        nonlocal audits_count
        audits_count += 1
        await assert_books_agree(client)

    await recalculated_books(client, clock, invoicing, after_each=audit)
    assert audits_count >= 20


@pytest.mark.parametrize("case", RECALCULATED.values(), ids=RECALCULATED)
async def test_a_damage_of_recalculated_books_is_found(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    database_url: str,
    case: Case,
) -> None:
    books = await recalculated_books(client, clock, invoicing)
    damaged_id = await damage(database_url, client, case.damage)
    await assert_named(client, case, books.id, damaged_id)


async def assert_named(
    client: BillingClient, case: Case, subscription_id: str, damaged_id: str
) -> None:
    """Assert that the audit names a damage, and blames nothing but what that makes wrong, too."""
    findings = await findings_of(client)
    naming = [e.row for e in findings if e.check == case.check and case.message in e.message]
    assert naming, findings
    found = naming[0]
    assert found.subscription_id == subscription_id
    if case.by_id:
        assert damaged_id in {found.billing_period_id, *found.resource_ids}
    assert {each.check for each in findings} == {case.check, *case.also.split()}


def test_every_check_has_its_damage() -> None:
    cases = [*CASES.values(), *RECALCULATED.values()]
    named = {check for case in cases for check in (case.check, *case.also.split())}
    assert named == {word(check) for check in pb.LedgerAuditCheck.values() if check}


async def test_figures_are_told_as_amounts_or_as_quantities(
    client: BillingClient, clock: FakeClock, database_url: str
) -> None:
    await rich_books(client, clock)
    await damage(database_url, client, CASES["the quantity of an aggregate"].damage)
    await damage(database_url, client, CASES["a closing snapshot"].damage)

    rows = {each.check: each.row for each in await findings_of(client)}

    closing, usage = rows["closing_receivables"], rows["usage_aggregates"]
    assert (closing.expected_amount, closing.actual_amount) == (633, 634)
    assert closing.currency == "USD"
    assert not closing.HasField("expected_quantity")
    assert (usage.expected_quantity.value, usage.actual_quantity.value) == ("17", "18")
    assert not usage.HasField("expected_amount")


async def test_findings_beyond_a_hundred_are_counted(
    client: BillingClient, clock: FakeClock, database_url: str
) -> None:
    customer = await rich_books(client, clock)
    for _ in range(101):
        await customer.use(1)
    every_event = CASES["the meter of the cost of usage"].damage
    for _ in range(103):
        still_right = "usage_meter_id IN (SELECT m.id FROM usage_meters m)"
        await damage(
            database_url, client, every_event._replace(row=f"{every_event.row} AND {still_right}")
        )

    page = await audit_page(client)

    told = [row for row in page.findings if word(row.check) == "usage_entries"]
    counts = {word(result.check): result.finding_count for result in page.checks}
    assert len(told) == 100
    assert counts["usage_entries"] == 103
