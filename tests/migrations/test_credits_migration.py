"""Revision 0002 on a database that revision 0001 and its service have filled.

``rows_at_0001.json`` is what that service wrote, of two tenants: acme with a subscription in
dollars (January invoiced, February billed and refused by the invoicing service, March open), one in
euros, a cancelled one, and one in test mode; globex with one in dollars.
"""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import grpc.aio
import pytest

from billing.bootstrap import running_service
from billing.config import Settings
from billing.domain.identifiers import BILLING_RUN, PLAN, SUBSCRIPTION, to_typeid
from billing.domain.ledger import TENANT_ACCOUNT_KINDS
from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.store.migrations import migrate
from billing.v1 import subscription_pb2
from tests.conftest import create_database, drop_database
from tests.factories.billing_runs import APRIL
from tests.factories.client import BillingClient, timestamp
from tests.factories.clock import START, FakeClock
from tests.factories.credits import (
    applications,
    confirm_refund,
    create_payment,
    create_refund,
    grant_credit,
)
from tests.factories.ledger_audit import assert_ledger_explains, invoices_of
from tests.factories.old_databases import (
    ROWS_AT_0001,
    by_content,
    fill,
    migrate_to,
    rows_of,
)

BEFORE: Final = ROWS_AT_0001
ADDED_COLUMNS: Final = {
    "subscriptions": {"credit_application"},
    "billing_periods": {"receivable_amount"},
    "plan_versions": {"late_usage_policy"},
    "subscription_usage_meters": {"pending_quantity", "pending_amount", "pending_event_count"},
}
AT_BILLING = subscription_pb2.CREDIT_APPLICATION_MODE_AT_BILLING
SUBSCRIBED: Final = [
    request
    for request in BEFORE["idempotent_requests"]
    if request["method"] == "CreateSubscription"
]


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a database that was brought from 0001 to the current schema."""
    url = await create_database(postgres_url)
    await migrate_to(url, "0001")
    await fill(url, BEFORE)
    await migrate(url)
    yield url
    await drop_database(postgres_url, url)


@pytest.fixture
async def acme(
    url: str, service_settings: Settings, signing_key: DevelopmentKey, clock: FakeClock
) -> AsyncIterator[BillingClient]:
    """A caller of the service, on the migrated database."""
    async with (
        running_service(
            replace(service_settings, database_url=url), api=True, worker=True, clock=clock
        ) as running,
        grpc.aio.insecure_channel(
            running.address or "", options=[("grpc.enable_http_proxy", 0)]
        ) as channel,
    ):
        yield BillingClient(channel, signing_key).for_tenant("acme")


def typeid(prefix: str, value: str) -> str:
    """The id of a row as callers know it."""
    return to_typeid(prefix, UUID(value))


def subscriptions_of(tenant_id: str, *, livemode: bool = True) -> dict[str, str]:
    """The subscriptions of the rows, by customer."""
    return {
        row["customer_id"]: typeid(SUBSCRIPTION, row["id"])
        for row in BEFORE["subscriptions"]
        if (row["tenant_id"], row["livemode"]) == (tenant_id, livemode)
    }


def test_the_rows_are_of_all_kinds() -> None:
    assert {(row["tenant_id"], row["livemode"]) for row in BEFORE["tenants"]} == {
        ("acme", True),
        ("acme", False),
        ("globex", True),
    }
    assert {row["status"] for row in BEFORE["billing_periods"]} == {"open", "billed", "invoiced"}
    assert {row["currency"] for row in BEFORE["ledger_accounts"]} == {"USD", "EUR"}
    assert set(BEFORE) >= {"ledger_entries", "usage_events", "charges", "calculations"}


class TestRows:
    async def test_what_was_there_is_as_it_was(self, url: str) -> None:
        after = await rows_of(url, BEFORE)

        for table, rows in BEFORE.items():
            kept = by_content(after[table], without=ADDED_COLUMNS.get(table, ()))
            if table == "ledger_accounts":
                assert set(by_content(rows)) <= set(kept)
            else:
                assert kept == by_content(rows)

    async def test_the_tenants_accounts_exist_once_a_currency(self, url: str) -> None:
        after = await rows_of(url, BEFORE)

        accounts = Counter(
            (row["tenant_id"], row["livemode"], row["currency"], row["kind"])
            for row in after["ledger_accounts"]
            if "subscription_id" not in row
        )
        held = {
            (row["tenant_id"], row["livemode"], row["currency"])
            for row in BEFORE["ledger_accounts"]
        }
        assert accounts == Counter((*key, kind) for key in held for kind in TENANT_ACCOUNT_KINDS)
        of_subscriptions = [row for row in after["ledger_accounts"] if "subscription_id" in row]
        assert len(of_subscriptions) == len(BEFORE["subscriptions"])

    async def test_what_is_owed_for_a_period_is_what_was_billed(self, url: str) -> None:
        after = await rows_of(url, BEFORE)

        for period in after["billing_periods"]:
            assert period["receivable_amount"] == period.get("total_amount", 0)
        assert {period["receivable_amount"] for period in after["billing_periods"]} > {0}

    async def test_subscriptions_consume_credits_at_billing(self, url: str) -> None:
        after = await rows_of(url, BEFORE)

        assert {row["credit_application"] for row in after["subscriptions"]} == {"at_billing"}


class TestService:
    @pytest.mark.parametrize("stored", SUBSCRIBED, ids=lambda stored: stored["response"]["id"])
    async def test_an_answer_from_before_is_still_the_answer(
        self, acme: BillingClient, stored: dict[str, Any]
    ) -> None:
        """Whose subscription says nothing of credits; its request is the same request still."""
        answer = stored["response"]
        assert "credit_application" not in answer
        client = acme.for_tenant(stored["tenant_id"])
        if not stored["livemode"]:
            client = client.in_test_mode()

        repeated = await client.subscriptions.CreateSubscription(
            subscription_pb2.CreateSubscriptionRequest(
                tenant_id=client.tenant_id,
                customer_id=answer["customer_id"],
                plan_id=typeid(PLAN, answer["plan_id"]),
                started_at=timestamp(datetime.fromisoformat(answer["started_at"]).astimezone(UTC)),
                request_id=stored["request_id"],
            )
        )

        assert repeated.subscription.id == typeid(SUBSCRIPTION, answer["id"])
        assert repeated.subscription.credit_application == AT_BILLING

    async def test_answers_of_other_rpcs_are_given_too(self, acme: BillingClient) -> None:
        run = await acme.run_billing("run-january")
        gone = subscriptions_of("acme")["cus-gone"]
        cancelled = await acme.cancel(gone, immediately=True, request_id="cancel-1")

        [january] = [
            row["id"]
            for row in BEFORE["billing_runs"]
            if row["as_of"].startswith("2026-02") and row["tenant_id"] == "acme"
        ]
        assert run.id == typeid(BILLING_RUN, january)
        assert cancelled.subscription.id == gone
        assert cancelled.subscription.credit_application == AT_BILLING

    async def test_balances_are_as_they_were(
        self, acme: BillingClient, invoicing: ReferenceInvoicingServer
    ) -> None:
        owed = {}
        for client in (acme, acme.in_test_mode(), acme.for_tenant("globex")):
            listed = subscriptions_of(client.tenant_id, livemode=client.livemode)
            for customer_id, subscription_id in listed.items():
                balance = await client.balance(subscription_id)
                assert (balance.credit_balance_amount, balance.available_credit_amount) == (0, 0)
                owed[customer_id] = (
                    balance.unbilled_amount,
                    balance.billed_not_invoiced_amount,
                    balance.invoiced_amount,
                )
            await assert_ledger_explains(client, invoicing, *listed.values())
        assert owed == {
            "cus-usd": (3, 2011, 2015),
            "cus-eur": (8, 0, 6),
            "cus-gone": (0, 0, 2000),
            "cus-test": (2, 0, 0),
            "cus-globex": (5, 0, 700),
        }

    async def test_credits_payments_and_refunds_work_with_it(
        self, acme: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
    ) -> None:
        listed = subscriptions_of("acme")
        dollars, euros = listed["cus-usd"], listed["cus-eur"]
        february = next(
            entry.billing_period_id
            for entry in await acme.entries(dollars)
            if entry.amount == -2000 and entry.posted_at.ToDatetime().month == 3
        )
        await grant_credit(acme, dollars, 2, effective_at=START - timedelta(days=70))
        await grant_credit(acme, euros, 5, currency="EUR", effective_at=START - timedelta(days=70))
        settled = await create_payment(acme, dollars, 2500, billing_period_id=february)
        assert settled.settled_amount == 2011
        refund = await create_refund(acme, settled.id, 300)
        await confirm_refund(acme, refund.id)
        await assert_ledger_explains(acme, invoicing, *listed.values())

        clock.set(APRIL + timedelta(days=1))
        await acme.run_billing("run-march")

        await assert_ledger_explains(acme, invoicing, *listed.values())
        applied = [each.amount_applied for each in await applications(acme, euros)]
        assert applied == [5]
        [of_february, of_march] = invoices_of(invoicing, acme, dollars)
        assert of_february.idempotency_key == february
        assert (of_february.total_amount, of_march.total_amount) == (2011, 2001 - 189)
        balance = await acme.balance(dollars)
        assert (balance.billed_not_invoiced_amount, balance.credit_balance_amount) == (0, 0)
        assert balance.invoiced_amount == 2015 + of_march.total_amount
