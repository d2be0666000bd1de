"""The service's own audit finds nothing in any history, after any step.

It is the audit that is tested: what the histories come to is compared with the reference elsewhere.
"""

from typing import Any

import grpc.aio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing.sandbox.development_key import DevelopmentKey
from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.book_audit import assert_books_agree
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credit_histories import Step
from tests.factories.credit_history_strategies import (
    STEPS,
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
    max_examples=histories_count(12),
    deadline=None,
    derandomize=not is_soak(),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(plans(), min_size=2, max_size=2), histories(STEPS, longest=16))
async def test_the_audit_finds_nothing_after_any_step(
    parts: dict[str, Any], plans_: list[Plan], steps: list[Step]
) -> None:
    client = BillingClient(parts["channel"], parts["key"])
    story = await Story.begin(client, parts["clock"], parts["invoicing"], plans_)
    for step in steps:
        await story.take(step)
        await assert_books_agree(client)
