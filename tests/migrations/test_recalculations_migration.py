"""Revision 0003 on a database that revision 0002 and its service have filled.

``rows_at_0002.json`` is what that service wrote, of two tenants. Of acme: cus-usd, whose February
is invoiced, paid in part by a promotion that has expired, and settled in part; and cus-realtime
with a promotion and a top-up, of which a part was refunded. Of globex: cus-eur, without credits.
"""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Final
from uuid import UUID

import grpc.aio
import pytest
from google.type.decimal_pb2 import Decimal

from billing.bootstrap import running_service
from billing.config import Settings
from billing.domain.identifiers import PLAN, SUBSCRIPTION, USAGE_EVENT, USAGE_METER, to_typeid
from billing.domain.ledger import TENANT_ACCOUNT_KINDS
from billing.sandbox.development_key import DevelopmentKey
from billing.store.migrations import migrate
from billing.v1 import calculation_pb2, catalog_pb2
from tests.conftest import create_database, drop_database
from tests.factories.calculations import (
    ACTIVE,
    SUPERSEDED,
    amend,
    calculations_of,
    estimate,
    recalculate,
    usage_event_of,
    write_off,
)
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.old_databases import ROWS_AT_0002, by_content, fill, migrate_to, rows_of

BEFORE: Final = ROWS_AT_0002
ADDED_COLUMNS: Final = {
    "plan_versions": {"late_usage_policy"},
    "subscription_usage_meters": {"pending_quantity", "pending_amount", "pending_event_count"},
}
INVOICE: Final = calculation_pb2.RECALCULATION_DOCUMENT_KIND_INVOICE
SUBSCRIPTIONS: Final = {
    row["customer_id"]: to_typeid(SUBSCRIPTION, UUID(row["id"])) for row in BEFORE["subscriptions"]
}


@pytest.fixture
async def url(postgres_url: str) -> AsyncIterator[str]:
    """The URL of a database that was brought from 0002 to the current schema."""
    url = await create_database(postgres_url)
    await migrate_to(url, "0002")
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


def usage_event(idempotency_key: str) -> str:
    """The event of a key, as callers know it."""
    [row] = [e for e in BEFORE["usage_events"] if e["idempotency_key"] == idempotency_key]
    return to_typeid(USAGE_EVENT, UUID(row["id"]))


def test_the_rows_are_of_all_kinds() -> None:
    assert {row["tenant_id"] for row in BEFORE["tenants"]} == {"acme", "globex"}
    assert {row["status"] for row in BEFORE["billing_periods"]} == {"open", "invoiced"}
    assert {row["kind"] for row in BEFORE["usage_credit_applications"]} == {
        "run",
        "realtime",
        "settlement",
    }
    assert {row["status"] for row in BEFORE["refunds"]} == {"succeeded"}
    assert {row["status"] for row in BEFORE["calculations"]} == {"active"}


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
        held = {("acme", True, "USD"), ("globex", True, "EUR")}
        assert accounts == Counter((*key, kind) for key in held for kind in TENANT_ACCOUNT_KINDS)

    async def test_plans_count_late_usage_in_the_open_period(self, url: str) -> None:
        after = await rows_of(url, BEFORE)
        assert {row["late_usage_policy"] for row in after["plan_versions"]} == {"open_period"}
        assert {row["pending_quantity"] for row in after["subscription_usage_meters"]} == {0}


class TestService:
    async def test_an_answer_from_before_is_still_the_answer(self, acme: BillingClient) -> None:
        """Whose version says nothing of late usage; its request is the same request still."""
        [plan] = [row for row in BEFORE["plans"] if row["tenant_id"] == "acme"]
        [meter] = [row for row in BEFORE["usage_meters"] if row["tenant_id"] == "acme"]

        repeated = await acme.catalog.CreatePlan(
            catalog_pb2.CreatePlanRequest(
                tenant_id="acme",
                currency="USD",
                request_id="plan-1",
                version=acme.plan_version(
                    base_price_amount=2000,
                    components=[
                        catalog_pb2.ComponentInput(
                            usage_meter_id=to_typeid(USAGE_METER, UUID(meter["id"])),
                            name="calls",
                            unit_price=Decimal(value="1"),
                            included_units=Decimal(value="10"),
                        )
                    ],
                ),
            )
        )

        assert repeated.plan.id == to_typeid(PLAN, UUID(plan["id"]))
        policy = repeated.plan.latest_version.late_usage_policy
        assert policy == catalog_pb2.LATE_USAGE_POLICY_OPEN_PERIOD

    async def test_balances_are_as_they_were(self, acme: BillingClient) -> None:
        told = {}
        for customer_id, subscription_id in SUBSCRIPTIONS.items():
            client = acme.for_tenant("globex") if customer_id == "cus-eur" else acme
            balance = await client.balance(subscription_id)
            told[customer_id] = (
                balance.unbilled_amount,
                balance.invoiced_amount,
                balance.credit_balance_amount,
            )
        assert told == {
            "cus-usd": (15, 2060 - 500, 0),
            "cus-realtime": (20 - 15, 2000, 70),
            "cus-eur": (0, 7, 0),
        }

    async def test_what_was_billed_can_be_put_right(self, acme: BillingClient) -> None:
        subscription_id, event_id = SUBSCRIPTIONS["cus-usd"], usage_event("early")
        event = await usage_event_of(acme, event_id)
        assert (event.corrected_quantity.value, event.voided) == ("110", False)
        await amend(acme, event_id, "150")

        answer = await recalculate(acme, subscription_id, event.billing_period_id)

        assert answer.recalculation.raw_change_amount == 40
        assert answer.recalculation.credits_change_amount == 0
        [document] = answer.recalculation.documents
        assert (document.kind, document.amount, document.failure) == (INVOICE, 40, "")
        new, old = [
            *await calculations_of(acme, subscription_id, status=ACTIVE),
            *await calculations_of(acme, subscription_id, status=SUPERSEDED),
        ]
        assert old.superseded_by_calculation_id == new.id
        assert (old.total_raw_usage_amount, new.total_raw_usage_amount) == (120, 160)
        assert (await acme.balance(subscription_id)).invoiced_amount == 1600
        lost = await write_off(acme, subscription_id, event.billing_period_id)
        assert lost.amount == 1600
        assert (await acme.balance(subscription_id)).invoiced_amount == 0
        assert (await acme.trial_balance()).difference_amount == 0

    async def test_what_is_open_can_be_estimated_and_corrected(self, acme: BillingClient) -> None:
        subscription_id, event_id = SUBSCRIPTIONS["cus-realtime"], usage_event("march-live")
        assert (await estimate(acme, subscription_id)).total_amount == 2000 + 20 - 15 - 70
        await amend(acme, event_id, "10")
        balance = await acme.balance(subscription_id)
        assert (balance.unbilled_amount, balance.available_credit_amount) == (0, 70 + 15)
        assert (await acme.trial_balance()).difference_amount == 0
