"""The invoicing service answers with what the database cannot keep: one result fails, no batch."""

from billing.bootstrap import Stores, system_clock, wire_execution
from billing.config import Settings
from billing.domain.identifiers import BILLING_RUN, from_typeid
from billing.domain.invoices import InvoiceRequest
from billing.domain.scope import Scope
from billing.observability.metrics import Metrics
from billing.store.database import Database
from tests.factories.billing_runs import FAILED, RUN_FAILED, SUCCEEDED, one_period_ago, start_run
from tests.factories.service_process import Deployment


class StrangeInvoicing:
    """Gives one customer an id that PostgreSQL refuses, past the client that would."""

    async def create_invoice(self, request: InvoiceRequest) -> str:
        """Return an id."""
        return "inv\0" if request.customer_id == "cus-1" else f"inv-{request.customer_id}"


async def test_an_answer_that_cannot_be_kept_fails_its_own_result(deployment: Deployment) -> None:
    async with deployment.running_here(worker=False) as client:
        plan = await client.create_plan()
        subscriptions = [
            await client.subscribe(plan, started_at=one_period_ago(), customer_id=f"cus-{number}")
            for number in range(3)
        ]
        run = await start_run(client)
        database = Database(deployment.database_url, pool_size=2)
        execution = wire_execution(
            Settings(), database, Stores(), StrangeInvoicing(), Metrics(), system_clock
        )
        await execution.bill_batch(
            Scope(client.tenant_id, livemode=True), from_typeid(BILLING_RUN, run.id), batch=0
        )
        await database.close()

        ended = await client.get_run(run.id)
        assert ended.status == RUN_FAILED
        by_subscription = {result.subscription_id: result for result in ended.results}
        first, strange, last = (by_subscription[s.id] for s in subscriptions)
        assert (first.status, last.status) == (SUCCEEDED, SUCCEEDED)
        assert (strange.status, strange.error_reason) == (FAILED, "INVOICE_NOT_DELIVERED")
        assert strange.invoice_id == ""
