"""Lists of entries and transactions: a filter leaves out what it must, and nothing else."""

from collections import Counter
from typing import Any

import pytest

from billing.domain.identifiers import SUBSCRIPTION, new_id, to_typeid
from billing.domain.ledger import LedgerSourceType
from billing.domain.ledger_filters import LEDGER_ENTRY_SOURCES
from billing.store import tables
from billing.v1 import catalog_pb2
from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_statement_pb2 as statement_pb
from tests.factories.billing_runs import APRIL
from tests.factories.client import BillingClient, component, moment, timestamp
from tests.factories.clock import START, FakeClock
from tests.factories.credits import applications, grant_credit
from tests.factories.ledger_moves import sources_of
from tests.factories.ledger_story import DAY, LedgerStory, tell_story
from tests.factories.refusals import refusal_of

POSTED = pb.LEDGER_ENTRY_STATUS_FILTER_POSTED
PENDING = pb.LEDGER_ENTRY_STATUS_FILTER_PENDING
DISCARDED = pb.LEDGER_ENTRY_STATUS_FILTER_DISCARDED


@pytest.fixture
async def story(client: BillingClient, clock: FakeClock) -> LedgerStory:
    return await tell_story(client, clock)


async def listed(story: LedgerStory, **filters: Any) -> list[pb.LedgerEntry]:
    """All entries that the filters let through, read three at a time."""
    return await listed_of(story.client, story.subscription_id, **filters)


async def listed_of(
    client: BillingClient, subscription_id: str, **filters: Any
) -> list[pb.LedgerEntry]:
    request = pb.ListLedgerEntriesRequest(
        tenant_id=client.tenant_id,
        subscription_id=subscription_id,
        page_size=3,
        **filters,
    )
    entries: list[pb.LedgerEntry] = []
    while True:
        answer = await client.ledger.ListLedgerEntries(request)
        entries.extend(answer.ledger_entries)
        request.page_token = answer.next_page_token
        if not request.page_token:
            return entries


def state_of(entry: pb.LedgerEntry) -> pb.LedgerEntryStatusFilter.ValueType:
    if entry.status == pb.LEDGER_ENTRY_STATUS_POSTED:
        return POSTED
    return DISCARDED if entry.HasField("discarded_at") else PENDING


async def test_entries_by_what_became_of_them(story: LedgerStory) -> None:
    entries = await story.client.entries(story.subscription_id)
    for status in (POSTED, PENDING, DISCARDED):
        expected = [entry for entry in entries if state_of(entry) == status]
        assert expected
        assert await listed(story, status=status) == expected


async def test_entries_by_any_source(story: LedgerStory) -> None:
    entries = await story.client.entries(story.subscription_id)
    kinds = set()
    source_ids = {(k, source) for entry in entries for k, source in sources_of(entry).items()}
    for kind, source_id in source_ids:
        expected = [entry for entry in entries if sources_of(entry).get(kind) == source_id]
        assert await listed(story, source_id=source_id) == expected
        kinds.add(f"source_{kind}_id")
    told = {
        "source_usage_event_id",
        "source_charge_id",
        "source_usage_credit_id",
        "source_credit_application_id",
        "source_credit_balance_adjustment_id",
        "source_payment_id",
        "source_refund_id",
    }
    assert kinds == told


def test_every_source_can_be_asked_for() -> None:
    # The table's other one belongs to a type of entry that is not made yet.
    assert set(tables.LEDGER_ENTRY_SOURCES) - set(LEDGER_ENTRY_SOURCES.values()) <= {
        "source_billing_period_calculation_id"
    }
    assert set(LEDGER_ENTRY_SOURCES.values()) <= set(tables.LEDGER_ENTRY_SOURCES)


async def test_a_source_that_causes_no_entries_is_refused_with_those_that_do(
    story: LedgerStory,
) -> None:
    for prefix in (SUBSCRIPTION, "nothing"):
        request = pb.ListLedgerEntriesRequest(
            tenant_id=story.client.tenant_id,
            subscription_id=story.subscription_id,
            source_id=to_typeid(prefix, new_id()),
        )
        refusal = await refusal_of(story.client.ledger.ListLedgerEntries(request))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["source_id"]
        assert f"{prefix}_... is the id of nothing that causes entries" in refusal.message
        assert "payment_..." in refusal.message


@pytest.mark.parametrize(
    "source_id", ["payment", "payment_1", "PAYMENT_01h455vb4pex5vsknk084sn02q"]
)
async def test_what_is_no_id_is_refused(story: LedgerStory, source_id: str) -> None:
    request = pb.ListLedgerEntriesRequest(
        tenant_id=story.client.tenant_id,
        subscription_id=story.subscription_id,
        source_id=source_id,
    )
    refusal = await refusal_of(story.client.ledger.ListLedgerEntries(request))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["source_id"]


async def test_a_source_of_another_subscription_has_no_entries_here(
    story: LedgerStory, clock: FakeClock
) -> None:
    other = await story.client.subscribe(await story.client.create_plan())
    credit = await grant_credit(story.client, other.id, 10)
    assert await listed(story, source_id=credit.id) == []
    assert len(await listed_of(story.client, other.id, source_id=credit.id)) == 1


async def test_entries_of_one_execution(story: LedgerStory) -> None:
    entries = await story.client.entries(story.subscription_id)
    run_ids = {entry.calculation_run_id for entry in entries} - {""}
    assert len(run_ids) > 1
    for run_id in run_ids:
        expected = [entry for entry in entries if entry.calculation_run_id == run_id]
        assert await listed(story, calculation_run_id=run_id) == expected


async def test_filters_together_leave_what_all_let_through(story: LedgerStory) -> None:
    entries = await story.client.entries(story.subscription_id)
    expected = [
        entry
        for entry in entries
        if entry.billing_period_id == story.march_id
        and entry.entry_type == pb.LEDGER_ENTRY_TYPE_CREDIT_APPLIED_TO_USAGE
        and entry.source_usage_credit_id == story.promotion_id
        and state_of(entry) == POSTED
    ]
    assert expected
    assert expected == await listed(
        story,
        billing_period_id=story.march_id,
        entry_type=pb.LEDGER_ENTRY_TYPE_CREDIT_APPLIED_TO_USAGE,
        source_id=story.promotion_id,
        status=POSTED,
    )


async def test_a_token_is_bound_to_every_filter(story: LedgerStory) -> None:
    first = pb.ListLedgerEntriesRequest(
        tenant_id=story.client.tenant_id, subscription_id=story.subscription_id, page_size=1
    )
    token = (await story.client.ledger.ListLedgerEntries(first)).next_page_token
    entry = (await story.client.entries(story.subscription_id))[0]
    for filters in (
        {"status": POSTED},
        {"component_id": "component_01h455vb4pex5vsknk084sn02q"},
        {"source_id": entry.source_usage_credit_id},
        {"calculation_run_id": "calcrun_01h455vb4pex5vsknk084sn02q"},
    ):
        request = pb.ListLedgerEntriesRequest(**filters)
        request.MergeFrom(first)
        request.page_token = token
        refusal = await refusal_of(story.client.ledger.ListLedgerEntries(request))
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_entries_of_one_component(client: BillingClient) -> None:
    """Its usage, its charge, and the credit that paid it; not those of the meter beside it."""
    meters = [await client.create_meter(code) for code in ("calls", "bytes")]
    plan_id = await client.create_plan(components=[component(m, unit_price="2") for m in meters])
    subscription = await client.subscribe(plan_id, started_at=START - 30 * DAY)
    plan = await client.catalog.GetPlan(
        catalog_pb2.GetPlanRequest(tenant_id=client.tenant_id, plan_id=plan_id)
    )
    component_ids = {c.usage_meter_id: c.id for c in plan.plan.latest_version.components}
    for meter_id, units in zip(meters, ("10", "20"), strict=True):
        await client.use(subscription.id, meter_id, units, START - 20 * DAY)
    await grant_credit(client, subscription.id, 45, effective_at=START - 30 * DAY)
    await client.run_billing()
    applied = await applications(client, subscription.id)
    assert sum(a.amount_applied for a in applied) == 45
    for meter_id, amount in zip(meters, (20, 40), strict=True):
        entries = await listed_of(client, subscription.id, component_id=component_ids[meter_id])
        assert {entry.usage_meter_id for entry in entries} == {meter_id}
        by_type = Counter[int]()
        for entry in entries:
            by_type[entry.entry_type] += entry.amount
        of_meter = [a.amount_applied for a in applied if a.usage_meter_id == meter_id]
        assert by_type == {
            pb.LEDGER_ENTRY_TYPE_USAGE_COST: -amount,
            pb.LEDGER_ENTRY_TYPE_CREDIT_APPLIED_TO_USAGE: sum(of_meter),
        }


def transactions_request(story: LedgerStory, **fields: Any) -> Any:
    return statement_pb.ListLedgerTransactionsRequest(
        tenant_id=story.client.tenant_id, subscription_id=story.subscription_id, **fields
    )


async def transactions(
    story: LedgerStory, **filters: Any
) -> list[statement_pb.LedgerTransactionSummary]:
    """All transactions that the filters let through, read four at a time."""
    request = transactions_request(story, page_size=4, **filters)
    found: list[statement_pb.LedgerTransactionSummary] = []
    while True:
        answer = await story.client.ledger.ListLedgerTransactions(request)
        found.extend(answer.ledger_transactions)
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


async def test_every_transaction_is_told_with_the_totals_of_its_entries(
    story: LedgerStory,
) -> None:
    found = await transactions(story)
    entries = await story.client.entries(story.subscription_id)
    assert [t.id for t in found] == sorted({e.ledger_transaction_id for e in entries}, reverse=True)
    own = {
        pb.LEDGER_ACCOUNT_KIND_RECEIVABLE,
        pb.LEDGER_ACCOUNT_KIND_CREDIT,
        pb.LEDGER_ACCOUNT_KIND_REFUND_CLEARING,
    }
    for each in found:
        of_it = [entry for entry in entries if entry.ledger_transaction_id == each.id]
        posted = [entry for entry in of_it if state_of(entry) == POSTED]
        assert each.posted_entry_count == len(posted)
        assert each.pending_entry_count == sum(state_of(e) == PENDING for e in of_it)
        assert each.net_amount == sum(
            e.amount
            for e in posted
            if (e.debit_account_kind in own) != (e.credit_account_kind in own)
        )
        assert each.currency == "USD"
        request = pb.GetLedgerTransactionRequest(
            tenant_id=story.client.tenant_id, ledger_transaction_id=each.id
        )
        whole = (await story.client.ledger.GetLedgerTransaction(request)).ledger_transaction
        for field in ("initiating_source_type", "initiating_source_id", "description"):
            assert getattr(each, field) == getattr(whole, field)
        assert each.created_at == whole.created_at
    balance = await story.client.balance(story.subscription_id)
    assert sum(each.net_amount for each in found) == balance.net_amount
    assert sum(each.outstanding_change_amount for each in found) == balance.outstanding_amount
    assert sum(e.credit_balance_change_amount for e in found) == balance.credit_balance_amount
    assert any(each.pending_entry_count for each in found)


async def test_transactions_by_cause(story: LedgerStory) -> None:
    found = await transactions(story)
    seen = set()
    for source_type in LedgerSourceType:
        expected = [each for each in found if each.initiating_source_type == source_type]
        assert await transactions(story, initiating_source_type=source_type) == expected
        seen |= {source_type} if expected else set()
    assert len(seen) >= 7


async def test_transactions_of_a_span_of_time(story: LedgerStory) -> None:
    found = await transactions(story)
    first = found[-1].created_at
    spans: list[dict[str, Any]] = [
        {"created_from": timestamp(APRIL)},
        {"created_until": timestamp(APRIL)},
        {"created_from": timestamp(START + DAY), "created_until": timestamp(APRIL + 2 * DAY)},
    ]
    for span in spans:
        start = moment(span.get("created_from", first))
        end = moment(span.get("created_until", timestamp(START + 365 * DAY)))
        expected = [each for each in found if start <= moment(each.created_at) < end]
        assert 0 < len(expected) < len(found)
        assert await transactions(story, **span) == expected
    assert await transactions(story, created_from=first) == found
    assert await transactions(story, created_until=first) == []


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"initiating_source_type": "magic"}, "initiating_source_type", "billing_run, "),
        (
            {"created_from": timestamp(APRIL), "created_until": timestamp(START)},
            "created_from",
            "lies after created_until, 2026-03-15",
        ),
    ],
)
async def test_wrong_filters_of_transactions_are_refused(
    story: LedgerStory, fields: dict[str, Any], field: str, text: str
) -> None:
    request = transactions_request(story, **fields)
    refusal = await refusal_of(story.client.ledger.ListLedgerTransactions(request))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == [field]
    assert text in refusal.message


async def test_transactions_of_an_unknown_subscription_are_not_found(client: BillingClient) -> None:
    request = statement_pb.ListLedgerTransactionsRequest(
        tenant_id=client.tenant_id, subscription_id="sub_01h455vb4pex5vsknk084sn02q"
    )
    refusal = await refusal_of(client.ledger.ListLedgerTransactions(request))
    assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
