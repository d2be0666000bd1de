"""Usage that is corrected in time ends as if it had been sent right: random small stories."""

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import pytest

from billing.sandbox.invoicing_server import ReferenceInvoicingServer
from tests.factories.calculations import amend, void_event
from tests.factories.client import BillingClient
from tests.factories.clock import FakeClock
from tests.factories.credited_subscription import (
    CreditedSubscription,
    february,
    subscribe_credited,
)
from tests.factories.credits import credits_of, expire_credits


class Use(NamedTuple):
    """Units of a component at a moment: as they were sent first, and as it was."""

    sent: int
    right: int
    at: datetime
    is_tokens: bool


def _uses(seed: int) -> list[Use]:
    chance = random.Random(seed)
    moments = sorted(february(chance.randrange(2, 28)) for _ in range(5))
    return [
        Use(right + chance.choice([0, 7, 20]), right, at, chance.random() < 0.5)
        for at in moments
        for right in [chance.choice([0, 5, 30])]
    ]


async def _figures(metered: CreditedSubscription) -> Any:
    """How it ends: the invoice, and what is left of each credit."""
    lines = await metered.bill_lines()
    await metered.audit()
    granted = await credits_of(metered.client, metered.id)
    return lines, [(each.status, each.remaining_amount) for each in granted]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("is_realtime", [False, True], ids=["at billing", "as it goes"])
async def test_it_ends_as_if_the_right_quantities_had_been_sent(
    client: BillingClient,
    clock: FakeClock,
    invoicing: ReferenceInvoicingServer,
    seed: int,
    *,
    is_realtime: bool,
) -> None:
    """With one credit that expires on the way, and too much usage that is taken back at any time.

    Where several credits pay, they are not shuffled again: a release is none of their order.
    """
    uses = _uses(seed)

    async def play(*, is_corrected: bool) -> Any:
        metered = await subscribe_credited(
            client if is_corrected else BillingClient(client.channel, client.key),
            clock,
            invoicing,
            is_realtime=is_realtime,
        )
        await metered.grant(60, expires_at=february(15))
        sent: list[tuple[str, Use]] = []
        for use in uses:
            units = use.sent if is_corrected else use.right
            meter_id = metered.tokens if use.is_tokens else metered.calls
            if units:
                result = await metered.use(units, use.at, meter_id)
                sent.append((result.usage_event_id, use))
        if is_corrected:
            await _correct(metered, sent, seed)
        return await _figures(metered)

    assert await play(is_corrected=True) == await play(is_corrected=False)


async def _correct(
    metered: CreditedSubscription, sent: Sequence[tuple[str, Use]], seed: int
) -> None:
    metered.reach(february(28))
    if seed % 2:
        await expire_credits(metered.client, metered.id)
    for event_id, use in sent:
        if use.right == 0:
            await void_event(metered.client, event_id)
        elif use.sent != use.right:
            await amend(metered.client, event_id, str(use.right))
