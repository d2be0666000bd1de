"""The ledger under credits, payments and refunds: one transaction an operation, one true past."""

from collections import defaultdict
from datetime import timedelta

import pytest

from billing.v1 import ledger_pb2
from billing.v1 import refund_pb2 as refund_pb
from tests.factories.billing_runs import APRIL, MARCH, MAY
from tests.factories.client import BillingClient, moment
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import adjust_credit, void_credit
from tests.factories.credits import (
    applications,
    confirm_refund,
    create_refund,
    expire_credits,
    fail_refund,
)
from tests.factories.customers import STORAGE, Customer, new_customer
from tests.factories.ledger_moves import account_balances, ledger_transaction, moves, sources_of

DAY = timedelta(days=1)
REVERT_ALL = refund_pb.REFUND_CREDIT_POLICY_REVERT_ALL


class Story:
    """Everything that moves credits, once or more; notes the balance after each step."""

    def __init__(self, customer: Customer) -> None:
        self.customer = customer
        self.told: list[ledger_pb2.Balance] = []
        self.ids: dict[str, set[str]] = defaultdict(set)
        """What ledger transactions were initiated by, by kind."""

    async def step(self) -> None:
        """Let time pass, note the balance, and see that refund clearing is zero."""
        self.told.append(await self.customer.client.balance(self.customer.subscription_id))
        await account_balances(self.customer.client)
        self.customer.clock.advance(minutes=1)

    async def tell(self) -> None:
        """Grant, use, pay, adjust, void, expire, bill, settle and refund."""
        customer, client = self.customer, self.customer.client
        await self.grants()
        payment = await customer.pay(1000)
        self.ids["payment"].add(payment.id)
        await self.step()
        refund = await create_refund(client, payment.id, 300)
        failing = await create_refund(client, payment.id, 200, credit_policy=REVERT_ALL)
        self.ids["refund"] |= {refund.id, failing.id}
        await self.step()
        customer.clock.set(START + 3 * DAY)
        await expire_credits(client)
        await self.step()
        await confirm_refund(client, refund.id)
        await self.step()
        await customer.use(50)
        await customer.use(400, STORAGE)
        await self.step()
        self.ids["billing_run"].add((await customer.bill()).id)
        await self.step()
        charged = await create_refund(client, payment.id, 100, credit_policy=REVERT_ALL)
        self.ids["refund"].add(charged.id)
        await confirm_refund(client, charged.id)
        await self.step()
        await fail_refund(client, failing.id)
        await self.step()
        settlement = await customer.pay(900, billing_period_id=customer.period_id)
        self.ids["payment"].add(settlement.id)
        await self.step()
        taken_back = await create_refund(client, settlement.id, 900, credit_policy=REVERT_ALL)
        self.ids["refund"].add(taken_back.id)
        await self.step()
        self.ids["billing_run"].add((await customer.bill(MAY + DAY)).id)
        await self.step()
        await confirm_refund(client, taken_back.id)
        await self.step()

    async def grants(self) -> None:
        """Grant three credits: one that is adjusted, one that is voided, and one that expires."""
        customer = self.customer
        kept = await customer.grant(100, effective_at=MARCH)
        voided = await customer.grant(200)
        over = await customer.grant(300, effective_at=MARCH, expires_at=START + DAY)
        self.ids["credit_grant"] |= {kept.id, voided.id, over.id}
        await self.step()
        await customer.use(60)
        await customer.use(30, STORAGE)
        await self.step()
        for change, fields in ((-40, {}), (10, {}), (-90, {"allow_deficit": True})):
            adjusted = await adjust_credit(customer.client, kept.id, change, **fields)
            self.ids["credit_balance_adjustment"].add(adjusted.adjustment.id)
            await self.step()
        await void_credit(customer.client, voided.id)
        self.ids["credit_void"].add(voided.id)
        await self.step()


@pytest.fixture
async def story(client: BillingClient, clock: FakeClock) -> Story:
    """A story that was told to its end."""
    story = Story(await new_customer(client, clock))
    await story.tell()
    return story


async def transactions_of(customer: Customer) -> list[ledger_pb2.LedgerTransaction]:
    """The ledger transactions of all entries, oldest first."""
    ids = dict.fromkeys(entry.ledger_transaction_id for entry in await customer.entries())
    return [await ledger_transaction(customer.client, each) for each in ids]


async def test_every_entry_belongs_to_the_operation_that_made_it(story: Story) -> None:
    customer = story.customer
    transactions = await transactions_of(customer)
    listed = {entry.id: entry for entry in await customer.entries()}
    held = {entry.id: entry for each in transactions for entry in each.entries}
    assert held == listed
    by_source: dict[str, set[str]] = defaultdict(set)
    for each in transactions:
        assert each.subscription_id == customer.subscription_id
        assert each.description
        by_source[each.initiating_source_type].add(each.initiating_source_id)
    assert len(by_source.pop("usage_ingestion")) == 4
    (expiration,) = by_source.pop("credit_expiration")
    assert expiration
    assert by_source == story.ids


async def test_each_operation_makes_its_own_types_of_entries(story: Story) -> None:
    types: dict[str, set[str]] = defaultdict(set)
    for each in await transactions_of(story.customer):
        types[each.initiating_source_type] |= {move.entry_type for move in moves(each.entries)}
    applied = {"credit_applied_to_usage", "credit_applied_to_charge"}
    assert types == {
        "credit_grant": {"credit_grant_recognized"},
        "usage_ingestion": {"usage_cost"},
        "credit_balance_adjustment": {"credit_balance_adjusted", "credit_deficit_charged"},
        "credit_void": {"credit_balance_adjusted"},
        "payment": {"payment_recognized", *applied},
        "credit_expiration": {"credit_applied_to_usage", "credit_grant_expired"},
        "billing_run": {"charge_billed", *applied},
        "refund": {
            "payment_refunded",
            "credit_balance_adjusted",
            "credit_application_reversed",
            "credit_deficit_charged",
        },
    }


async def test_a_payment_and_a_refund_have_one_entry_of_their_money(story: Story) -> None:
    entries = await story.customer.entries()
    for entry_type, source in (("payment_recognized", "payment"), ("payment_refunded", "refund")):
        found = [
            sources_of(entry)[source]
            for entry, move in zip(entries, moves(entries), strict=True)
            if move.entry_type == entry_type
        ]
        assert sorted(found) == sorted(story.ids[source])


async def test_only_applications_name_what_they_were_calculated_by(story: Story) -> None:
    customer = story.customer
    runs = {
        row.id: row.calculation_run_id
        for row in await applications(customer.client, customer.subscription_id)
    }
    entries = await customer.entries()
    told = {}
    for entry, move in zip(entries, moves(entries), strict=True):
        if move.entry_type.startswith("credit_applied"):
            told[entry.source_credit_application_id] = entry.calculation_run_id
        elif move.entry_type != "charge_billed":
            assert entry.calculation_run_id == "", move
    assert told == runs
    assert all(runs.values())


async def test_past_balances_stay_as_they_were_told(story: Story) -> None:
    assert len({balance.net_amount for balance in story.told}) > 5
    for balance in story.told:
        then = await story.customer.client.balance(
            story.customer.subscription_id, as_of=moment(balance.as_of)
        )
        assert then == balance
    assert moment(story.told[-1].as_of) > APRIL
    await story.customer.owed()
