"""Whatever happens to credits in whatever order: the service says what the reference says.

The reference is a ledger in plain Python (``tests/factories/reference_ledger.py``), written from
the design alone. After every step of a random history the books balance, no credit is below zero,
the receivable is what invoices and open periods ask for, and all of it is what the reference has,
now and of an earlier moment.

``BILLING_TEST_HISTORIES=2000 pytest tests/stateful`` tells that many other histories.
"""

from typing import Any

import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_histories import Step
from tests.factories.credit_history_strategies import (
    STEPS,
    billed_histories,
    histories,
    histories_count,
    is_soak,
    plans,
)
from tests.factories.credit_story import Story
from tests.factories.reference_books import Plan


@pytest.fixture(scope="module")
def parts(
    channel: grpc.aio.Channel,
    signing_key: DevelopmentKey,
    session_clock: FakeClock,
    session_invoicing: ReferenceInvoicingServer,
) -> dict[str, Any]:
    """What every history is told with."""
    return {
        "channel": channel,
        "key": signing_key,
        "clock": session_clock,
        "invoicing": session_invoicing,
    }


@settings(
    max_examples=histories_count(20),
    deadline=None,
    derandomize=not is_soak(),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(plans(), min_size=2, max_size=2), histories(STEPS, longest=16))
async def test_after_every_step_the_service_says_what_the_reference_says(
    parts: dict[str, Any], plans_: list[Plan], steps: list[Step]
) -> None:
    await tell(parts, plans_, steps)


@settings(
    max_examples=histories_count(16),
    deadline=None,
    derandomize=not is_soak(),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(plans(), min_size=2, max_size=2), billed_histories(longest=16))
async def test_after_every_correction_the_service_says_what_the_reference_says(
    parts: dict[str, Any], plans_: list[Plan], steps: list[Step]
) -> None:
    await tell(parts, plans_, steps)


async def tell(parts: dict[str, Any], plans_: list[Plan], steps: list[Step]) -> None:
    """Tell a history to both, and compare them after every step."""
    client = BillingClient(parts["channel"], parts["key"])
    story = await Story.begin(client, parts["clock"], parts["invoicing"], plans_)
    for step in steps:
        await story.take(step)
        await story.audit()
    await story.final_audit()
