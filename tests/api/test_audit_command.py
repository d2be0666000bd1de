"""``billing audit`` against a real service: what it prints, and what its exit code tells."""

import asyncio
from collections.abc import Mapping

import pytest
from typer.testing import CliRunner, Result

from billing.bootstrap import RunningService
from billing.cli import app
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.audited_books import damage, rich_books
from tests.factories.book_damages import CASES
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.usage import metered_subscription


class Auditor:
    """Somebody with a terminal that is none."""

    def __init__(self, client: BillingClient, address: str) -> None:
        self.client = client
        self.address = address

    async def run(self, *arguments: str, env: Mapping[str, str | None] | None = None) -> Result:
        """Run the command, in a thread: the service needs this one."""
        command = ["audit", "--tenant", self.client.tenant_id, "--address", self.address]
        return await asyncio.to_thread(
            CliRunner().invoke,
            app,
            [*command, *arguments],
            env={"BILLING_TOKEN": self.client.token} if env is None else env,
        )


@pytest.fixture
def auditor(client: BillingClient, service: RunningService) -> Auditor:
    assert service.address is not None
    return Auditor(client, service.address)


async def test_books_that_agree_are_0(auditor: Auditor, clock: FakeClock) -> None:
    await rich_books(auditor.client, clock)
    await metered_subscription(auditor.client)
    result = await auditor.run("--page-size=1")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"{auditor.client.tenant_id}: all agree in 2 subscriptions and 1 invoices, by 30 checks\n"
    )
    assert result.stderr == ""  # no terminal, no progress


async def test_findings_are_1_and_say_what_and_where(
    auditor: Auditor, clock: FakeClock, database_url: str
) -> None:
    customer = await rich_books(auditor.client, clock)
    credit_id = await damage(database_url, auditor.client, CASES["what is held of a credit"].damage)
    result = await auditor.run()
    assert result.exit_code == 1
    assert "what is held of the credit is not what pending entries hold" in result.stdout
    assert "41 instead of 40 USD" in " ".join(result.stdout.split())
    assert customer.subscription_id in result.stdout
    assert credit_id in result.stdout
    assert "3 findings in 1 subscriptions and 1 invoices" in result.stdout
    counts = [line.split() for line in result.stdout.splitlines() if line.split()[-1:] == ["1"]]
    assert [name for name, *_ in counts if name.startswith("credit")] == [
        "credit_balances",
        "credit_holds",
    ]


async def test_one_subscription_is_audited_alone(
    auditor: Auditor, clock: FakeClock, database_url: str
) -> None:
    await rich_books(auditor.client, clock)
    other = await metered_subscription(auditor.client)
    await damage(database_url, auditor.client, CASES["a closing snapshot"].damage)
    result = await auditor.run("--subscription", other.subscription_id)
    assert result.exit_code == 0
    assert "in 1 subscriptions" in result.stdout


async def test_invoices_that_cannot_be_looked_up_are_told_and_no_finding(
    auditor: Auditor, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> None:
    await rich_books(auditor.client, clock)
    invoicing.error_rate = 1.0
    result = await auditor.run()
    assert result.exit_code == 0
    assert "1 invoices were not checked: " in result.stdout

    result = await auditor.run("--no-invoices")
    assert "not checked" not in result.stdout


async def test_an_audit_that_could_not_be_done_is_2(auditor: Auditor) -> None:
    unknown = "sub_01h455vb4pex5vsknk084sn02q"
    result = await auditor.run("--subscription", unknown)
    assert result.exit_code == 2
    assert unknown in result.stderr

    narrow = auditor.client.with_capabilities("billing.ledger:read").token
    result = await auditor.run(env={"BILLING_TOKEN": narrow})
    assert result.exit_code == 2
    assert "the token does not allow this" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--client-key", "key.pem"], "--client-certificate and --client-key go together"),
        (["--token-file", "/nowhere"], "--token-file /nowhere"),
        (["--page-size", "0"], "page-size"),
        (["--plaintext", "--root-certificates", "ca.pem"], "not for --plaintext"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
async def test_options_that_cannot_be_used_are_2(
    auditor: Auditor, arguments: list[str], told: str
) -> None:
    result = await auditor.run(*arguments)
    assert result.exit_code == 2
    assert told in result.output


async def test_without_a_token_nobody_is_called(auditor: Auditor) -> None:
    result = await auditor.run(env={"BILLING_TOKEN": None})
    assert result.exit_code == 2
    assert "no token: set BILLING_TOKEN or --token-file" in result.stderr
