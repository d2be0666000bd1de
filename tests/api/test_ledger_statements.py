"""Statements: opening plus movements is closing, on every page and for every span."""

import base64
import json
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from billing.v1 import ledger_pb2 as pb
from billing.v1 import ledger_statement_pb2 as statement_pb
from tests.factories.billing_runs import APRIL
from tests.factories.client import BillingClient, moment, timestamp, usage_event
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_story import DAY, LedgerStory, tell_story
from tests.factories.ledger_views import OWN_KINDS, assert_adds_up, assert_end, statement_pages
from tests.factories.refusals import refusal_of

UNKNOWN = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"


@pytest.fixture
async def story(client: BillingClient, clock: FakeClock) -> LedgerStory:
    return await tell_story(client, clock)


def request_for(story: LedgerStory, **fields: Any) -> statement_pb.GetStatementRequest:
    return statement_pb.GetStatementRequest(
        tenant_id=story.client.tenant_id,
        **{"subscription_id": story.subscription_id, **fields},
    )


async def pages_of(story: LedgerStory, **fields: Any) -> list[pb.GetStatementResponse]:
    return await statement_pages(story.client, story.subscription_id, **fields)


async def statement(story: LedgerStory, **fields: Any) -> pb.GetStatementResponse:
    [page] = await pages_of(story, page_size=1000, **fields)
    assert_adds_up([page])
    return page


async def test_the_whole_history_leads_from_nothing_to_the_balance(story: LedgerStory) -> None:
    told = await statement(story)
    assert told.opening_balance == statement_pb.StatementBalance()
    assert not told.HasField("posted_from")
    assert_end(told.closing_balance, await story.client.balance(story.subscription_id))
    posted = [
        entry
        for entry in await story.client.entries(story.subscription_id)
        if entry.status == pb.LEDGER_ENTRY_STATUS_POSTED and entry.amount
    ]
    own = [
        entry
        for entry in posted
        if (entry.debit_account_kind in OWN_KINDS) != (entry.credit_account_kind in OWN_KINDS)
    ]
    told_entries = {m.ledger_entry.id: m.ledger_entry for m in told.movements}
    assert told_entries == {entry.id: entry for entry in own}
    assert len(own) < len(posted)


async def test_every_span_begins_and_ends_with_the_balance_of_its_ends(story: LedgerStory) -> None:
    client, sub = story.client, story.subscription_id
    for first, last in pairwise(story.moments):
        told = await statement(story, posted_from=timestamp(first), posted_until=timestamp(last))
        assert_end(told.opening_balance, await client.balance(sub, as_of=first))
        assert_end(told.closing_balance, await client.balance(sub, as_of=last))
        assert (moment(told.posted_from), moment(told.posted_until)) == (first, last)
        posted = [moment(m.ledger_entry.posted_at) for m in told.movements]
        assert all(first <= each < last for each in posted)


async def test_a_span_is_half_open(story: LedgerStory) -> None:
    [first, *_] = (await statement(story)).movements
    at = first.ledger_entry.posted_at
    until = await statement(story, posted_until=at)
    assert len(until.movements) == 0
    assert until.closing_balance == statement_pb.StatementBalance()
    onwards = await statement(story, posted_from=at)
    assert onwards.movements[0] == first
    empty = await statement(story, posted_from=at, posted_until=at)
    assert (len(empty.movements), empty.opening_balance) == (0, empty.closing_balance)


@pytest.mark.parametrize("page_size", [1, 2, 7])
async def test_every_page_goes_on_with_the_right_balance(
    story: LedgerStory, page_size: int
) -> None:
    for fields in ({}, {"billing_period_id": story.march_id}, {"posted_from": timestamp(APRIL)}):
        whole = await statement(story, **fields)
        pages = await pages_of(story, page_size=page_size, **fields)
        assert_adds_up(pages)
        assert [m for page in pages for m in page.movements] == list(whole.movements)
        assert {len(page.movements) for page in pages[:-1]} <= {page_size}


async def test_what_is_posted_while_pages_are_read_does_not_move_the_end(
    story: LedgerStory, clock: FakeClock
) -> None:
    request = request_for(story, page_size=5)
    pages = [await story.client.ledger.GetStatement(request)]
    clock.advance(seconds=1)
    await story.client.use(story.subscription_id, story.meter_id, "1", clock.now)
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(await story.client.ledger.GetStatement(request))
    assert_adds_up(pages)
    [*_, now_last] = (await statement(story)).movements
    assert now_last.ledger_entry.id not in {
        m.ledger_entry.id for page in pages for m in page.movements
    }


async def test_an_end_in_the_future_is_the_present(story: LedgerStory, clock: FakeClock) -> None:
    told = await statement(story, posted_until=timestamp(clock.now + DAY))
    # The last moment of a half-open span is the microsecond before its end.
    assert moment(told.posted_until) == clock.now + timedelta(microseconds=1)
    assert list(told.movements) == list((await statement(story)).movements)


async def test_the_statements_of_the_periods_follow_each_other(story: LedgerStory) -> None:
    march = await statement(story, billing_period_id=story.march_id)
    april = await statement(story, billing_period_id=story.april_id)
    assert march.opening_balance == statement_pb.StatementBalance()
    assert march.closing_balance == april.opening_balance
    assert_end(april.closing_balance, await story.client.balance(story.subscription_id))
    assert march.billing_period_id == story.march_id
    assert moment(march.posted_until) == moment(april.posted_from) == APRIL
    counted = {m.ledger_entry.billing_period_id for m in march.movements}
    assert counted == {story.march_id, ""}
    fees = [m for m in march.movements if moment(m.ledger_entry.posted_at) >= APRIL]
    assert [m.ledger_entry.entry_type for m in fees] == [pb.LEDGER_ENTRY_TYPE_CHARGE_BILLED]


async def test_usage_that_costs_nothing_is_no_movement(story: LedgerStory) -> None:
    entries = await story.client.entries(story.subscription_id)
    free = {e.id for e in entries if e.entry_type == pb.LEDGER_ENTRY_TYPE_USAGE_COST}
    told = {m.ledger_entry.id for m in (await statement(story)).movements}
    assert len(free) == len(free & told) + 1


async def test_a_subscription_of_which_nothing_happened_has_an_empty_statement(
    client: BillingClient,
) -> None:
    subscription = await client.subscribe(await client.create_plan())
    answer = await client.ledger.GetStatement(
        statement_pb.GetStatementRequest(
            tenant_id=client.tenant_id, subscription_id=subscription.id
        )
    )
    assert (answer.opening_balance, answer.closing_balance) == (
        statement_pb.StatementBalance(),
        statement_pb.StatementBalance(),
    )
    assert (len(answer.movements), answer.next_page_token) == (0, "")


async def test_a_span_that_ends_before_it_starts_is_refused_with_both(story: LedgerStory) -> None:
    request = request_for(story, posted_from=timestamp(START), posted_until=timestamp(START - DAY))
    refusal = await refusal_of(story.client.ledger.GetStatement(request))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["posted_from"]
    assert "2026-03-15T12:00:00+00:00 lies after posted_until, 2026-03-14" in refusal.message


async def test_a_span_in_the_future_is_refused_with_the_present(
    story: LedgerStory, clock: FakeClock
) -> None:
    start = clock.now + DAY
    request = request_for(story, posted_from=timestamp(start), posted_until=timestamp(start + DAY))
    refusal = await refusal_of(story.client.ledger.GetStatement(request))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert "which is the present, 2026-04-08" in refusal.message


async def test_a_period_and_a_span_are_refused_together(story: LedgerStory) -> None:
    request = request_for(story, billing_period_id=story.march_id, posted_from=timestamp(START))
    refusal = await refusal_of(story.client.ledger.GetStatement(request))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["billing_period_id"]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"subscription_id": UNKNOWN}, "SUBSCRIPTION_NOT_FOUND"),
        ({"subscription_id": UNKNOWN, "billing_period_id": "own"}, "SUBSCRIPTION_NOT_FOUND"),
        ({"billing_period_id": UNKNOWN_PERIOD}, "BILLING_PERIOD_NOT_FOUND"),
    ],
)
async def test_what_does_not_exist_is_not_found(
    story: LedgerStory, fields: dict[str, str], reason: str
) -> None:
    if fields.get("billing_period_id") == "own":
        fields = {**fields, "billing_period_id": story.march_id}
    refusal = await refusal_of(story.client.ledger.GetStatement(request_for(story, **fields)))
    assert refusal.kind == ("NOT_FOUND", reason)


async def test_a_token_is_for_the_statement_that_it_was_made_for(story: LedgerStory) -> None:
    [page, *_] = await pages_of(story, page_size=3)
    for fields in ({"billing_period_id": story.march_id}, {"posted_from": timestamp(START)}):
        request = request_for(story, page_token=page.next_page_token, **fields)
        refusal = await refusal_of(story.client.ledger.GetStatement(request))
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def made_up_token(story: LedgerStory, *keys: int) -> str:
    """The token of a statement's next page, with other keys."""
    [page, *_] = await pages_of(story, page_size=3)
    padded = page.next_page_token + "=" * (-len(page.next_page_token) % 4)
    content = json.loads(base64.urlsafe_b64decode(padded))[:2]
    made_up = json.dumps([*content, *(UUID(int=key).hex for key in keys)])
    return base64.urlsafe_b64encode(made_up.encode()).decode().rstrip("=")


async def test_a_made_up_token_of_no_moment_is_refused(story: LedgerStory) -> None:
    request = request_for(story, page_token=await made_up_token(story, 2**128 - 1, 0, 0))
    refusal = await refusal_of(story.client.ledger.GetStatement(request))
    assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_a_made_up_token_leads_to_no_movements(story: LedgerStory) -> None:
    request = request_for(story, page_token=await made_up_token(story, 10**17, 1, 2))
    answer: pb.GetStatementResponse = await story.client.ledger.GetStatement(request)
    assert (len(answer.movements), answer.next_page_token) == (0, "")


async def test_another_tenants_statement_is_denied(story: LedgerStory) -> None:
    stranger = BillingClient(story.client.channel, story.client.key)
    request = request_for(story)
    refusal = await refusal_of(stranger.ledger.GetStatement(request))
    assert refusal.kind == ("PERMISSION_DENIED", "TENANT_DENIED")


async def test_a_ledger_of_thousands_of_entries_is_told_page_by_page(
    client: BillingClient, clock: FakeClock, story: LedgerStory
) -> None:
    for call in range(3):
        events = [
            usage_event(story.subscription_id, story.meter_id, "1", clock.now, key=f"{call}-{n}")
            for n in range(1000)
        ]
        await client.ingest(events)
    pages = await pages_of(story, page_size=5000)
    assert [len(page.movements) for page in pages[:3]] == [1000, 1000, 1000]
    assert_adds_up(pages)
