"""What tests of recalculations and write-offs begin with."""

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import CreditedSubscription, subscribe_credited


@pytest.fixture
async def held(
    client: BillingClient, clock: FakeClock, invoicing: ReferenceInvoicingServer
) -> CreditedSubscription:
    """A subscription from the first of February on, of a plan that holds late usage."""
    return await subscribe_credited(client, clock, invoicing, holds_late_usage=True)
