"""Reading the ledger: every cent that is owed is explained by entries, at any moment."""

from collections import defaultdict
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import ledger_pb2 as pb
from tests.factories.client import BillingClient, component, moment, usage_event
from tests.factories.clock import START, FakeClock
from tests.factories.ledger_audit import assert_ledger_explains
from tests.factories.refusals import refusal_of
from tests.factories.usage import MeteredSubscription, metered_subscription

UNKNOWN_SUBSCRIPTION = "sub_01h455vb4pex5vsknk084sn02q"
UNKNOWN_TRANSACTION = "txn_01h455vb4pex5vsknk084sn02q"
UNKNOWN_PERIOD = "period_01h455vb4pex5vsknk084sn02q"
USAGE_COST = pb.LEDGER_ENTRY_TYPE_USAGE_COST
CHARGE_BILLED = pb.LEDGER_ENTRY_TYPE_CHARGE_BILLED
RECEIVABLE, USAGE_REVENUE, SUBSCRIPTION_REVENUE = (
    pb.LEDGER_ACCOUNT_KIND_RECEIVABLE,
    pb.LEDGER_ACCOUNT_KIND_USAGE_REVENUE,
    pb.LEDGER_ACCOUNT_KIND_SUBSCRIPTION_REVENUE,
)


@pytest.fixture
async def metered(client: BillingClient) -> MeteredSubscription:
    """A subscription at 2000 a period and 2 a unit."""
    return await metered_subscription(client, base_price_amount=2000)


def parts_of(balance: pb.Balance) -> tuple[int, int, int]:
    assert balance.net_amount == -balance.outstanding_amount
    parts = (balance.unbilled_amount, balance.billed_not_invoiced_amount, balance.invoiced_amount)
    assert balance.outstanding_amount == sum(parts)
    return parts


async def get_transaction(client: BillingClient, transaction_id: str) -> pb.LedgerTransaction:
    request = pb.GetLedgerTransactionRequest(
        tenant_id=client.tenant_id, ledger_transaction_id=transaction_id
    )
    answer = await client.ledger.GetLedgerTransaction(request)
    return answer.ledger_transaction  # type: ignore[no-any-return]


async def entries_page(
    client: BillingClient, subscription_id: str, **fields: Any
) -> tuple[list[pb.LedgerEntry], str]:
    request = pb.ListLedgerEntriesRequest(
        tenant_id=client.tenant_id, subscription_id=subscription_id, **fields
    )
    answer = await client.ledger.ListLedgerEntries(request)
    return list(answer.ledger_entries), answer.next_page_token


async def filtered(
    client: BillingClient, subscription_id: str, **filters: Any
) -> list[pb.LedgerEntry]:
    """All entries that the filters let through."""
    rows, token = await entries_page(client, subscription_id, **filters)
    assert token == ""
    return rows


async def test_a_new_subscription_owes_nothing(metered: MeteredSubscription) -> None:
    balance = await metered.client.balance(metered.subscription_id)
    assert parts_of(balance) == (0, 0, 0)
    assert balance.currency == "USD"
    assert await metered.client.entries(metered.subscription_id) == []


async def test_what_is_owed_moves_from_unbilled_to_invoiced(
    metered: MeteredSubscription, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    client, subscription_id = metered.client, metered.subscription_id
    await metered.send(metered.event("5"))
    assert parts_of(await client.balance(subscription_id)) == (10, 0, 0)
    clock.advance(days=40)
    invoicing.error_rate = 1.0
    await client.run_billing("run-1")
    await metered.send(metered.event("1", at=clock.now))
    assert parts_of(await client.balance(subscription_id)) == (2, 2010, 0)
    invoicing.error_rate = 0.0
    await client.run_billing("run-2")
    assert parts_of(await client.balance(subscription_id)) == (2, 0, 2010)
    clock.advance(days=31)
    await client.run_billing("run-3")
    assert parts_of(await client.balance(subscription_id)) == (0, 0, 4012)
    await assert_ledger_explains(client, invoicing, subscription_id)


async def test_the_balance_of_any_moment_is_what_it_was_then(
    metered: MeteredSubscription, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    client, subscription_id = metered.client, metered.subscription_id
    told: list[pb.Balance] = []

    async def note() -> None:
        told.append(await client.balance(subscription_id))

    await note()
    for step in range(6):
        await metered.send(metered.event(str(step), at=clock.now))
        await note()
        clock.advance(days=17)
        invoicing.error_rate = 1.0 if step % 2 else 0.0
        await client.run_billing(f"run-{step}")
        await note()
        # Late for the period that was billed just now.
        await metered.send(metered.event("10", at=clock.now - timedelta(days=20)))
        await note()
    assert len({parts_of(balance) for balance in told}) > 10
    for balance in told:
        again = await client.balance(subscription_id, as_of=moment(balance.as_of))
        assert again == balance


async def test_a_balance_has_its_moment(metered: MeteredSubscription, clock: FakeClock) -> None:
    client, subscription_id = metered.client, metered.subscription_id
    await metered.send(metered.event("5", at=START - timedelta(days=3)))
    now = await client.balance(subscription_id)
    assert moment(now.as_of) <= clock.now
    # By recorded time: the event was consumed earlier than it was known.
    for as_of in (START - timedelta(days=1), START - timedelta(days=4000)):
        balance = await client.balance(subscription_id, as_of=as_of)
        assert parts_of(balance) == (0, 0, 0)
        assert moment(balance.as_of) == as_of
    (entry,) = await client.entries(subscription_id)
    recorded_at = moment(entry.posted_at)
    for as_of, unbilled in ((recorded_at, 10), (recorded_at - timedelta(microseconds=1), 0)):
        balance = await client.balance(subscription_id, as_of=as_of)
        assert balance.unbilled_amount == unbilled


async def test_a_balance_of_the_future_is_refused(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    ahead = clock.now + timedelta(minutes=1)
    refusal = await refusal_of(metered.client.balance(metered.subscription_id, as_of=ahead))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["as_of"]
    assert ahead.isoformat() in refusal.message
    request = pb.GetBalanceRequest(
        tenant_id=metered.client.tenant_id,
        subscription_id=metered.subscription_id,
        as_of=Timestamp(seconds=10**15),
    )
    refusal = await refusal_of(metered.client.ledger.GetBalance(request))
    assert refusal.fields == ["as_of"]


async def test_every_entry_says_where_it_comes_from(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    client, subscription_id = metered.client, metered.subscription_id
    subscription = await client.get_subscription(subscription_id)
    (event,) = await metered.send(metered.event("5", at=START - timedelta(days=1)))
    clock.advance(days=40)
    (result,) = (await client.run_billing()).results
    usage, charge = await client.entries(subscription_id)
    assert (usage.entry_type, charge.entry_type) == (USAGE_COST, CHARGE_BILLED)
    assert (usage.amount, charge.amount) == (-10, -2000)
    assert usage.description == "API Calls on 2026-03-14"
    assert charge.description == "Monthly subscription - Pro Plan"
    assert usage.source_usage_event_id == event.usage_event_id
    assert usage.usage_meter_id == metered.meter_id
    assert (usage.source_charge_id, usage.calculation_run_id) == ("", "")
    assert charge.source_charge_id.startswith("charge_")
    assert charge.calculation_run_id == result.calculation_run_id
    assert (charge.source_usage_event_id, charge.usage_meter_id) == ("", "")
    for entry in (usage, charge):
        assert entry.subscription_id == subscription_id
        assert entry.billing_period_id == subscription.current_period_id
        assert entry.status == pb.LEDGER_ENTRY_STATUS_POSTED
        assert entry.currency == "USD"
        assert entry.posted_at == entry.entry_timestamp
        assert not entry.HasField("discarded_at")
        assert entry.applied_to_ledger_entry_id == ""


async def test_entries_explain_the_balance_by_period(
    metered: MeteredSubscription, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    client, subscription_id = metered.client, metered.subscription_id
    for number in range(3):
        await metered.send(*[metered.event(str(n), at=clock.now) for n in range(number + 2)])
        clock.advance(days=31)
    run = await client.run_billing()
    by_period: dict[str, int] = defaultdict(int)
    for entry in await client.entries(subscription_id):
        by_period[entry.billing_period_id] -= entry.amount
    assert by_period == {r.billing_period_id: r.total_amount for r in run.results}
    assert len(by_period) == 3
    balance = await client.balance(subscription_id)
    assert balance.outstanding_amount == sum(by_period.values())
    await assert_ledger_explains(client, invoicing, subscription_id)


async def test_a_call_makes_one_transaction_a_subscription(client: BillingClient) -> None:
    metered = await metered_subscription(client)
    other = await client.subscribe(metered.plan_id, started_at=START)
    ids = [metered.subscription_id, other.id]
    events = [
        usage_event(subscription_id, metered.meter_id, str(number), START)
        for number in range(3)
        for subscription_id in ids
    ]
    await client.ingest(events)
    await client.ingest([events[0], usage_event(ids[0], metered.meter_id, "9", START)])
    causes = []
    for subscription_id, transaction_count in zip(ids, (2, 1), strict=True):
        entries = await client.entries(subscription_id)
        transaction_ids = list(dict.fromkeys(entry.ledger_transaction_id for entry in entries))
        assert len(transaction_ids) == transaction_count
        transactions = [await get_transaction(client, each) for each in transaction_ids]
        assert [entry for each in transactions for entry in each.entries] == entries
        assert len(transactions[0].entries) == 3
        for transaction in transactions:
            assert transaction.subscription_id == subscription_id
            assert transaction.initiating_source_type == "usage_ingestion"
            assert transaction.initiating_source_id.startswith("ingest_")
            assert transaction.created_at == transaction.entries[0].entry_timestamp
        causes.append([transaction.initiating_source_id for transaction in transactions])
    assert causes[0][0] == causes[1][0]
    assert causes[0][0] != causes[0][1]


async def test_a_run_makes_one_transaction_a_period_and_names_itself(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    clock.advance(days=70)
    run = await metered.client.run_billing()
    entries = await metered.client.entries(metered.subscription_id)
    assert len(entries) == len(run.results) == 2
    for entry, result in zip(entries, run.results, strict=True):
        transaction = await get_transaction(metered.client, entry.ledger_transaction_id)
        assert list(transaction.entries) == [entry]
        assert transaction.initiating_source_type == "billing_run"
        assert transaction.initiating_source_id == run.id
        assert f"{moment(result.period_end):%Y-%m-%d}" in transaction.description


async def test_subscriptions_have_receivables_of_their_own_and_share_revenue(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    client = metered.client
    other = await client.subscribe(metered.plan_id, started_at=START - timedelta(days=5))
    ids = [metered.subscription_id, other.id]
    for subscription_id in ids:
        await client.use(subscription_id, metered.meter_id, "1", START)
    clock.advance(days=40)
    await client.run_billing()
    entries = [await client.entries(subscription_id) for subscription_id in ids]
    receivables = [{entry.debit_account_id for entry in each} for each in entries]
    assert [len(accounts) for accounts in receivables] == [1, 1]
    assert receivables[0] != receivables[1]
    for usage, charge in entries:
        assert usage.debit_account_kind == charge.debit_account_kind == RECEIVABLE
        assert usage.credit_account_kind == USAGE_REVENUE
        assert charge.credit_account_kind == SUBSCRIPTION_REVENUE
    for position in (0, 1):
        assert entries[0][position].credit_account_id == entries[1][position].credit_account_id


async def test_the_trial_balance_adds_up_by_kind_and_currency(
    client: BillingClient, clock: FakeClock
) -> None:
    assert (await client.trial_balance()).lines == []
    meter_id = await client.create_meter()
    priced = [component(meter_id, unit_price="3")]
    for currency, base_price in (("USD", 1000), ("EUR", 500)):
        plan_id = await client.create_plan(
            currency=currency, base_price_amount=base_price, components=priced
        )
        for _ in range(2):
            subscription = await client.subscribe(plan_id, started_at=START - timedelta(days=1))
            await client.use(subscription.id, meter_id, "7", START)
    clock.advance(days=31)
    await client.run_billing()
    trial = await client.trial_balance()
    lines = {
        (line.currency, line.account_kind): (line.debit_amount, line.credit_amount)
        for line in trial.lines
    }
    assert len(lines) == len(trial.lines)
    assert trial.difference_amount == 0
    assert lines == {
        ("USD", RECEIVABLE): (2042, 0),
        ("USD", USAGE_REVENUE): (0, 42),
        ("USD", SUBSCRIPTION_REVENUE): (0, 2000),
        ("EUR", RECEIVABLE): (1042, 0),
        ("EUR", USAGE_REVENUE): (0, 42),
        ("EUR", SUBSCRIPTION_REVENUE): (0, 1000),
    }


async def test_entries_are_listed_in_the_order_they_were_made(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    client, subscription_id = metered.client, metered.subscription_id
    sent: list[str] = []
    for _ in range(3):
        results = await metered.send(*[metered.event(at=clock.now) for _ in range(3)])
        sent.extend(result.usage_event_id for result in results)
        clock.advance(days=31)
        await client.run_billing(f"run-{len(sent)}")
    entries = await client.entries(subscription_id)
    assert [e.source_usage_event_id for e in entries if e.source_usage_event_id] == sent
    types = [entry.entry_type for entry in entries]
    assert types == [USAGE_COST, USAGE_COST, USAGE_COST, CHARGE_BILLED] * 3
    for size in (1, 2, 4, 5, 11, 12, 13, 2**31 - 1):
        walked: list[pb.LedgerEntry] = []
        token = ""
        while True:
            rows, token = await entries_page(
                client, subscription_id, page_size=size, page_token=token
            )
            walked.extend(rows)
            if not token:
                break
            assert len(rows) == size
        assert walked == entries


async def test_entries_are_filtered_by_period_and_type(
    metered: MeteredSubscription, clock: FakeClock
) -> None:
    client, subscription_id = metered.client, metered.subscription_id
    first = (await client.get_subscription(subscription_id)).current_period_id
    await metered.send(metered.event())
    clock.advance(days=31)
    await metered.send(metered.event(at=clock.now))
    await client.run_billing()
    first_usage, second_usage, charge = await client.entries(subscription_id)
    second = second_usage.billing_period_id
    for filters, expected in (
        ({"billing_period_id": first}, [first_usage, charge]),
        ({"billing_period_id": second}, [second_usage]),
        ({"billing_period_id": UNKNOWN_PERIOD}, []),
        ({"entry_type": USAGE_COST}, [first_usage, second_usage]),
        ({"entry_type": CHARGE_BILLED, "billing_period_id": first}, [charge]),
        ({"entry_type": CHARGE_BILLED, "billing_period_id": second}, []),
    ):
        assert await filtered(client, subscription_id, **filters) == expected
    _, token = await entries_page(client, subscription_id, page_size=1)
    for fields in ({"entry_type": USAGE_COST}, {"billing_period_id": first}):
        refused = entries_page(client, subscription_id, page_token=token, **fields)
        refusal = await refusal_of(refused)
        assert refusal.kind == ("INVALID_ARGUMENT", "PAGE_TOKEN_INVALID")


async def test_malformed_and_unknown_things_are_refused(metered: MeteredSubscription) -> None:
    client = metered.client
    for unknown in (
        client.balance(UNKNOWN_SUBSCRIPTION),
        entries_page(client, UNKNOWN_SUBSCRIPTION),
    ):
        refusal = await refusal_of(unknown)
        assert refusal.kind == ("NOT_FOUND", "SUBSCRIPTION_NOT_FOUND")
    refusal = await refusal_of(get_transaction(client, UNKNOWN_TRANSACTION))
    assert refusal.kind == ("NOT_FOUND", "LEDGER_TRANSACTION_NOT_FOUND")
    fields = {"billing_period_id": "p", "entry_type": 99, "page_size": -1}
    refusal = await refusal_of(entries_page(client, "sub", **fields))
    assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert refusal.fields == ["subscription_id", *fields]
    refusal = await refusal_of(get_transaction(client, "txn_1"))
    assert refusal.fields == ["ledger_transaction_id"]
