"""Granting credits: what a grant records, what it posts, and how it is read again."""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from billing.v1 import catalog_pb2
from billing.v1 import usage_credit_pb2 as pb
from tests.factories.billing_runs import APRIL
from tests.factories.client import BillingClient, component, moment
from tests.factories.clock import START, FakeClock
from tests.factories.credit_changes import update_credit, void_credit
from tests.factories.credits import credit, credits_of, grant_credit
from tests.factories.customers import STORAGE, Customer, Owed, new_customer
from tests.factories.ledger_moves import (
    Move,
    account_balances,
    ledger_transaction,
    moves,
    nothing_written,
    sources_of,
)
from tests.factories.refusals import refusal_of

PROMO, GOODWILL, SERVICE_CREDIT, REFERRAL = (
    pb.USAGE_CREDIT_TYPE_GRANTED_PROMO,
    pb.USAGE_CREDIT_TYPE_GRANTED_GOODWILL,
    pb.USAGE_CREDIT_TYPE_GRANTED_SERVICE_CREDIT,
    pb.USAGE_CREDIT_TYPE_GRANTED_REFERRAL,
)
UNKNOWN_CREDIT = "credit_01h455vb4pex5vsknk084sn02q"
CONCURRENT_CALLS = 6


@pytest.fixture
async def customer(client: BillingClient, clock: FakeClock) -> Customer:
    """A subscription since 1 March."""
    return await new_customer(client, clock)


async def grant(customer: Customer, amount: int = 500, **terms: Any) -> pb.UsageCredit:
    return await grant_credit(customer.client, customer.subscription_id, amount, **terms)


def told(message: Message, name: str) -> Any:
    """A field of a message as the tests write it: times as datetimes, maps as dictionaries."""
    value = getattr(message, name)
    if isinstance(value, Timestamp):
        return moment(value)
    return dict(value) if name == "metadata" else value


def without(message: pb.UsageCredit, *names: str) -> pb.UsageCredit:
    """A credit but for some fields."""
    rest: Any = pb.UsageCredit()
    rest.CopyFrom(message)
    for name in names:
        rest.ClearField(name)
    return rest  # type: ignore[no-any-return]


class TestGrant:
    """One grant is one credit and one entry that says so."""

    @pytest.mark.parametrize("credit_type", [PROMO, GOODWILL, SERVICE_CREDIT, REFERRAL])
    async def test_every_granted_type_makes_one_untouched_credit(
        self, customer: Customer, credit_type: pb.UsageCreditType.ValueType
    ) -> None:
        granted = await grant(customer, 750, credit_type=credit_type)
        assert granted.id.startswith("credit_")
        assert granted.issued_at == granted.effective_at == granted.updated_at
        assert START < moment(granted.issued_at) <= customer.clock.now
        assert granted == pb.UsageCredit(
            id=granted.id,
            subscription_id=customer.subscription_id,
            credit_type=credit_type,
            issued_amount=750,
            currency="USD",
            effective_at=granted.effective_at,
            issued_at=granted.issued_at,
            initial_status="granted_active",
            status=pb.USAGE_CREDIT_STATUS_AVAILABLE,
            remaining_amount=750,
            updated_at=granted.updated_at,
        )
        assert await credits_of(customer.client, customer.subscription_id) == [granted]

    async def test_a_grant_is_recognized_by_one_posted_entry_of_its_own_transaction(
        self, customer: Customer
    ) -> None:
        granted = await grant(customer, 750)
        (entry,) = await customer.entries()
        assert moves([entry]) == [
            Move("credit_grant_recognized", 750, "promotional_expense", "credit")
        ]
        assert entry.credit_account_id == granted.id.replace("credit_", "account_")
        assert entry.currency == "USD"
        assert entry.entry_timestamp == entry.posted_at == granted.issued_at
        assert sources_of(entry) == {"usage_credit": granted.id}
        assert not entry.billing_period_id, "a grant touches nothing that is owed"
        transaction = await ledger_transaction(customer.client, entry.ledger_transaction_id)
        assert transaction.initiating_source_type == "credit_grant"
        assert transaction.initiating_source_id == granted.id
        assert transaction.subscription_id == customer.subscription_id
        assert transaction.created_at == granted.issued_at
        assert list(transaction.entries) == [entry]

    async def test_each_grant_has_a_transaction_of_its_own_and_all_add_up(
        self, customer: Customer
    ) -> None:
        amounts = [100, 20, 3]
        granted = [await grant(customer, amount) for amount in amounts]
        entries = await customer.entries()
        assert [entry.amount for entry in entries] == amounts
        assert [entry.source_usage_credit_id for entry in entries] == [g.id for g in granted]
        assert len({entry.ledger_transaction_id for entry in entries}) == len(amounts)
        assert await account_balances(customer.client) == {
            "promotional_expense": 123,
            "credit": -123,
        }
        assert await customer.owed() == Owed(credit_balance=123, available_credit=123)

    @pytest.mark.parametrize(
        "terms",
        [
            {"priority": -1000},
            {"priority": 1000},
            {"effective_at": START - timedelta(days=400)},
            {"effective_at": START + timedelta(days=400)},
            {"expires_at": START + timedelta(seconds=1)},
            {
                "effective_at": START + timedelta(days=1),
                "expires_at": START + timedelta(days=2),
            },
            {"covers_charges": True},
            {"source_reference_id": "SPRING-26"},
            {"notes": "by the support, after a call\nof an hour"},
            {"metadata": {"campaign": "spring", "by": "Zoë"}},
            {"amount": 1},
            {"amount": 1_000_000_000_000_000},
        ],
        ids="+".join,
    )
    async def test_an_option_is_kept_as_it_was_told(
        self, customer: Customer, terms: dict[str, Any]
    ) -> None:
        granted = await grant(customer, **terms)
        expected = {"issued_amount": 500, **terms}
        expected["issued_amount"] = expected.pop("amount", 500)
        for name, value in expected.items():
            assert told(granted, name) == value, name
        assert await credit(customer.client, granted.id) == granted
        (entry,) = await customer.entries()
        assert entry.amount == granted.issued_amount == granted.remaining_amount

    async def test_a_credit_can_be_for_a_period_a_meter_or_a_component(
        self, customer: Customer
    ) -> None:
        for scope in (
            {"billing_period_id": customer.period_id},
            {"usage_meter_id": customer.meter_ids[STORAGE]},
            {"component_id": customer.component_ids[STORAGE]},
            {
                "billing_period_id": customer.period_id,
                "usage_meter_id": customer.meter_ids[STORAGE],
                "component_id": customer.component_ids[STORAGE],
            },
            {"billing_period_id": customer.period_id, "covers_charges": True},
        ):
            granted = await grant(customer, **scope)
            for name in ("billing_period_id", "usage_meter_id", "component_id"):
                assert getattr(granted, name) == scope.get(name, "")
            assert await credit(customer.client, granted.id) == granted

    async def test_a_component_of_any_version_of_the_plan_can_be_paid(
        self, customer: Customer
    ) -> None:
        version = customer.client.plan_version(components=[component(customer.meter_ids[STORAGE])])
        answer = await customer.client.catalog.UpdatePlan(
            catalog_pb2.UpdatePlanRequest(
                tenant_id=customer.client.tenant_id, plan_id=customer.plan_id, version=version
            )
        )
        (later,) = answer.plan.latest_version.components
        assert later.id not in customer.component_ids
        for component_id in (later.id, *customer.component_ids):
            assert (await grant(customer, component_id=component_id)).component_id == component_id

    async def test_grants_are_possible_while_paused_and_before_a_late_run(
        self, customer: Customer
    ) -> None:
        await customer.client.pause(customer.subscription_id)
        await grant(customer)
        customer.clock.set(APRIL + timedelta(days=3))
        late = await grant(customer, billing_period_id=customer.period_id, effective_at=START)
        assert late.billing_period_id == customer.period_id

    async def test_an_unknown_credit_is_not_found(self, customer: Customer) -> None:
        refusal = await refusal_of(credit(customer.client, UNKNOWN_CREDIT))
        assert refusal.kind == ("NOT_FOUND", "CREDIT_NOT_FOUND")
        granted = await grant(customer)
        refusal = await refusal_of(credit(customer.client.in_test_mode(), granted.id))
        assert refusal.kind == ("NOT_FOUND", "CREDIT_NOT_FOUND")


class TestRepeats:
    """The same request_id is the same grant."""

    async def test_a_repeat_is_answered_as_the_first_call_was(self, customer: Customer) -> None:
        terms: dict[str, Any] = {"request_id": "grant-1", "metadata": {"b": "2", "a": "1"}}
        granted = await grant(customer, **terms)
        await update_credit(customer.client, granted.id, "notes", notes="changed since")
        customer.clock.advance(days=20)
        async with nothing_written(customer.client, customer.subscription_id):
            assert await grant(customer, **terms) == granted

    async def test_a_request_id_stands_for_one_content(self, customer: Customer) -> None:
        await grant(customer, request_id="grant-1")
        async with nothing_written(customer.client, customer.subscription_id):
            for other in (
                {"amount": 501},
                {"priority": 1},
                {"notes": "other"},
                {"credit_type": REFERRAL},
                {"expires_at": START + timedelta(days=1)},
            ):
                refusal = await refusal_of(grant(customer, request_id="grant-1", **other))
                assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
                assert refusal.fields == ["request_id"]
                assert refusal.metadata["method"] == "GrantCredit"

    async def test_concurrent_repeats_make_one_credit(self, customer: Customer) -> None:
        answers = await asyncio.gather(
            *(grant(customer, request_id="grant-1") for _ in range(CONCURRENT_CALLS))
        )
        assert len({answer.id for answer in answers}) == 1
        assert [entry.amount for entry in await customer.entries()] == [500]

    async def test_only_successes_are_kept(self, customer: Customer) -> None:
        await refusal_of(grant(customer, request_id="grant-1", currency="EUR"))
        assert (await grant(customer, request_id="grant-1")).currency == "USD"

    async def test_a_request_id_is_required_because_money_moves(self, customer: Customer) -> None:
        refusal = await refusal_of(grant(customer, request_id=""))
        assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
        assert refusal.fields == ["request_id"]


class TestUpdate:
    """Notes and metadata may change, and nothing else."""

    async def test_the_mask_says_what_changes(self, customer: Customer) -> None:
        granted = await grant(customer, notes="first", metadata={"a": "1", "b": "2"})
        update = partial(update_credit, customer.client, granted.id)
        for paths, fields, notes, metadata in (
            (["notes"], {"notes": "2nd", "metadata": {"c": "3"}}, "2nd", {"a": "1", "b": "2"}),
            (["metadata"], {"notes": "3rd", "metadata": {"c": "3"}}, "2nd", {"c": "3"}),
            (["notes", "metadata"], {"notes": "4th", "metadata": {"d": "4"}}, "4th", {"d": "4"}),
            (["metadata"], {}, "4th", {}),
            (["notes"], {}, "", {}),
        ):
            before = await credit(customer.client, granted.id)
            updated = await update(*paths, **fields)
            assert (updated.notes, dict(updated.metadata)) == (notes, metadata)
            assert moment(updated.updated_at) > moment(before.updated_at)
            assert await credit(customer.client, granted.id) == updated

    async def test_the_core_of_a_credit_never_changes(self, customer: Customer) -> None:
        granted = await grant(
            customer, priority=3, expires_at=START + timedelta(days=9), source_reference_id="X-1"
        )
        entries = await customer.entries()
        updated = await update_credit(
            customer.client, granted.id, "notes", "metadata", notes="n", metadata={"k": "v"}
        )
        changed = ("notes", "metadata", "updated_at")
        assert without(updated, *changed) == without(granted, *changed)
        assert await customer.entries() == entries
        assert await customer.owed() == Owed(credit_balance=500, available_credit=500)

    @pytest.mark.parametrize(
        "path",
        ["issued_amount", "amount", "expires_at", "priority", "currency", "status", "*", "id"],
    )
    async def test_a_mask_cannot_name_anything_else(self, customer: Customer, path: str) -> None:
        granted = await grant(customer)
        async with nothing_written(customer.client, customer.subscription_id):
            for paths in ([path], ["notes", path]):
                refusal = await refusal_of(
                    update_credit(customer.client, granted.id, *paths, notes="other")
                )
                assert refusal.kind == ("INVALID_ARGUMENT", "FIELD_INVALID")
                assert refusal.fields == ["update_mask"]
                assert repr(path) in refusal.message

    async def test_an_empty_mask_and_an_unknown_credit_are_refused(
        self, customer: Customer
    ) -> None:
        granted = await grant(customer)
        refusal = await refusal_of(update_credit(customer.client, granted.id, notes="other"))
        assert (refusal.code, refusal.fields) == ("INVALID_ARGUMENT", ["update_mask"])
        refusal = await refusal_of(update_credit(customer.client, UNKNOWN_CREDIT, "notes"))
        assert refusal.kind == ("NOT_FOUND", "CREDIT_NOT_FOUND")

    async def test_a_dead_credit_can_be_annotated_and_stays_dead(self, customer: Customer) -> None:
        granted = await grant(customer)
        voided = await void_credit(customer.client, granted.id)
        updated = await update_credit(customer.client, granted.id, "notes", notes="why")
        assert updated.status == pb.USAGE_CREDIT_STATUS_VOIDED
        assert without(updated, "notes", "updated_at") == without(voided, "updated_at")

    async def test_a_repeat_is_answered_as_the_first_call_was(self, customer: Customer) -> None:
        granted = await grant(customer)
        update = partial(update_credit, customer.client, granted.id, "notes")
        first = await update(notes="first", request_id="update-1")
        second = await update(notes="second", request_id="update-2")
        assert await update(notes="first", request_id="update-1") == first
        assert await credit(customer.client, granted.id) == second
        refusal = await refusal_of(update(notes="third", request_id="update-1"))
        assert refusal.kind == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
        assert (await update(notes="third")).notes == "third"
