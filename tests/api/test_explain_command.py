"""``billing explain charge|balance`` against the service: trees, JSON, and what is refused."""

import asyncio
import json
import os
import sys
from datetime import timedelta
from typing import NamedTuple

import pytest
from google.protobuf.json_format import ParseDict

from billing.bootstrap import RunningService
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from billing.v1 import balance_explanation_pb2, explanation_pb2
from tests.factories.calculations import recalculate, void_event
from tests.factories.client import BillingClient
from tests.factories.clock import START, FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.explanations import assert_adds_up, charges_of, explain_balance
from tests.factories.usage import metered_subscription


class Ended(NamedTuple):
    """A command that ended."""

    exit_code: int
    stdout: str
    stderr: str


async def run(
    service: RunningService, client: BillingClient, *arguments: str, token: str | None = None
) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "billing.cli", "explain", *arguments),
        f"--address={service.address}",
        f"--tenant={client.tenant_id}",
        env={**os.environ, "BILLING_TOKEN": client.token if token is None else token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


class Story(NamedTuple):
    """A billed and recalculated period."""

    credited: CreditedSubscription
    period_id: str


@pytest.fixture
async def story(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> Story:
    credited = await subscribe_credited(
        client, clock, invoicing, base_price_amount=2000, holds_late_usage=True
    )
    await credited.grant(60, source_reference_id="spring [campaign]")
    used = await credited.use(100, february(3))
    await credited.use(30, february(4), credited.tokens)
    period_id = (await credited.bill()).billing_period_id
    await credited.use(15, february(20))
    await void_event(client, used.usage_event_id)
    await recalculate(client, credited.id, period_id)
    return Story(credited, period_id)


async def test_a_charge_is_a_tree_of_amounts_in_the_currency(
    service: RunningService, story: Story
) -> None:
    client = story.credited.client
    _, usage, *_ = await charges_of(client, story.credited.id)
    ended = await run(service, client, "charge", usage.id)
    assert (ended.exit_code, ended.stderr) == (0, "")
    top, *below = ended.stdout.splitlines()
    assert top == f"calls (100): 1.00 USD  {usage.id}"
    told = "\n".join(below)
    for part in (
        "billing period 2026-02-01 00:00:00 to 2026-03-01 00:00:00, lines of 20.70 USD in all",
        "priced: 100 units cost 1.00 USD",
        "above 0: 100 units at 0.01 USD = 1 USD",
        "calculated: 100 units, 1.00 USD, credits 0.60 USD, net 0.40 USD",
        "replaced by: 15 units, 0.15 USD",
        "usage: 1 event of 100 units for 1.00 USD",
        "credits pay 0.60 USD",
        "granted promo pays 0.60 USD; taken back since 0.45 USD",
        "spring [campaign]",
        "net 0.40 USD",
    ):
        assert part in told


async def test_all_lines_of_a_period(service: RunningService, story: Story) -> None:
    client, subscription_id = story.credited.client, story.credited.id
    ended = await run(
        service,
        client,
        "charge",
        f"--subscription={subscription_id}",
        f"--period={story.period_id}",
    )
    assert (ended.exit_code, ended.stderr) == (0, "")
    tops = [each for each in ended.stdout.splitlines() if each[0] not in "│├└ "]
    charges = await charges_of(client, subscription_id, story.period_id)
    assert [top.rpartition("  ")[2] for top in tops] == [charge.id for charge in charges]
    assert "Monthly subscription - Pro Plan: 20.00 USD" in tops[0]
    assert "Pro Plan, version 1: 20.00 USD for 1 month" in ended.stdout
    assert "taken in: 1 event of 15 units for 0.15 USD, 1 correction of -100 units" in ended.stdout
    assert "voided: 100 to 0 units, -1.00 USD: sent by a test" in ended.stdout
    assert "billing adjustment +0.85 USD" in ended.stdout


async def test_json_is_what_the_service_answers(service: RunningService, story: Story) -> None:
    client, subscription_id = story.credited.client, story.credited.id
    charges = await charges_of(client, subscription_id)
    one = await run(service, client, "charge", charges[1].id, "--json")
    explained = ParseDict(json.loads(one.stdout), explanation_pb2.ChargeExplanation())
    assert explained.charge == charges[1]
    assert_adds_up(explained)
    choice = (f"--subscription={subscription_id}", f"--period={story.period_id}")
    several = await run(service, client, "charge", *choice, "--json")
    for message, charge in zip(json.loads(several.stdout), charges, strict=True):
        each = ParseDict(message, explanation_pb2.ChargeExplanation())
        assert each.charge == charge
        assert_adds_up(each)


async def test_many_events_are_shown_in_part_or_all(
    service: RunningService, client: BillingClient, clock: FakeClock
) -> None:
    metered = await metered_subscription(client, started_at=START - timedelta(days=40))
    at = START - timedelta(days=30)
    await metered.send(*[metered.event(at=at) for _ in range(1203)])
    await client.run_for_subscription(metered.subscription_id)
    [usage] = await charges_of(client, metered.subscription_id)
    few = await run(service, client, "charge", usage.id, "--events=3")
    assert few.stdout.count("usage_01") == 3
    assert "and 1,200 more: --all-events shows them" in few.stdout
    all_ = await run(service, client, "charge", usage.id, "--all-events")
    assert all_.stdout.count("usage_01") == 1203
    assert "more: " not in all_.stdout


async def test_a_balance_is_told_by_what_moved_it(service: RunningService, story: Story) -> None:
    client, subscription_id = story.credited.client, story.credited.id
    ended = await run(service, client, "balance", f"--subscription={subscription_id}")
    assert (ended.exit_code, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    # 20.00 a month, 0.30 of tokens and 0.15 of calls, of which the credit pays all it can.
    assert lines[0] == f"the balance moved by -19.85 USD  {subscription_id}"
    assert "opening (before the first entry): net 0.00 USD" in lines[1]
    assert "closing (2026-03-" in lines[-1]
    assert "usage cost by usage ingestion: net -1.30 USD" in ended.stdout
    assert "billing adjustment by recalculation: net +0.85 USD" in ended.stdout
    choice = (f"--subscription={subscription_id}", "--from=2026-02-03", "--until=2026-02-05")
    spanned = await run(service, client, "balance", *choice, "--json")
    message = ParseDict(json.loads(spanned.stdout), balance_explanation_pb2.BalanceExplanation())
    assert message == await explain_balance(client, subscription_id, february(3), february(5))


async def test_money_has_the_decimals_of_its_currency(
    service: RunningService, client: BillingClient, clock: FakeClock
) -> None:
    plan_id = await client.create_plan(currency="JPY", base_price_amount=1500)
    subscription = await client.subscribe(plan_id, started_at=START - timedelta(days=40))
    await client.run_for_subscription(subscription.id)
    [charge] = await charges_of(client, subscription.id)
    ended = await run(service, client, "charge", charge.id)
    assert f"Pro Plan: 1500 JPY  {charge.id}" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["charge"], "what to explain"),
        (["charge", "--subscription=sub_01h455vb4pex5vsknk084sn02q"], "what to explain"),
        (["charge", "charge_1", "--period=period_1"], "one of them is enough"),
        (["charge", "charge_1"], "charge_id"),
        (["charge", "charge_01h455vb4pex5vsknk084sn02q"], "does not exist"),
        (["charge", "charge_01h455vb4pex5vsknk084sn02q", "--events=0"], "--events"),
        (["balance", "--subscription=sub_1"], "subscription_id"),
        (["balance", "--subscription=sub_01h455vb4pex5vsknk084sn02q"], "does not exist"),
        (["balance", "--subscription=s", "--from=soon"], "--from soon"),
        (["balance", "--subscription=s", "--from=2026-03-02", "--until=2026-03-01"], "lies after"),
        (["balance", "--subscription=s", "--until=2026-03-01T00:00:00"], "time zone"),
        (["balance"], "--subscription"),
    ],
)
async def test_what_cannot_be_explained_is_told_and_is_1(
    service: RunningService, client: BillingClient, arguments: list[str], problem: str
) -> None:
    ended = await run(service, client, *arguments)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert problem in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_a_period_without_charges_is_told(
    service: RunningService, client: BillingClient, clock: FakeClock
) -> None:
    metered = await metered_subscription(client)
    subscription = await client.get_subscription(metered.subscription_id)
    ended = await run(
        service,
        client,
        "charge",
        f"--subscription={subscription.id}",
        f"--period={subscription.current_period_id}",
    )
    assert ended.exit_code == 1
    assert "was charged nothing" in ended.stderr


async def test_another_tenant_is_refused(service: RunningService, client: BillingClient) -> None:
    stranger = BillingClient(client.channel, client.key)
    ended = await run(service, client, "balance", "--subscription=s", token=stranger.token)
    assert ended.exit_code == 1
    assert "the token does not allow this" in ended.stderr


async def test_no_token_is_told(service: RunningService, client: BillingClient) -> None:
    ended = await run(service, client, "charge", "charge_1", token="")
    assert ended.exit_code == 1
    assert "no token" in ended.stderr
