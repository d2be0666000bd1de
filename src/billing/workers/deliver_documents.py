"""Delivers documents of recalculations that could not be delivered at once."""

import asyncio
import logging
from typing import Final

from billing.services.recalculation_delivery import RecalculationDelivery

_logger = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 60.0


class DeliverDocumentsWorker:
    """Repeats the delivery until it is cancelled."""

    def __init__(self, delivery: RecalculationDelivery) -> None:
        self._delivery = delivery

    async def run(self) -> None:
        """Try again and again; a failed round is followed by the next one."""
        while True:
            try:
                await self._delivery.deliver_undelivered()
            except Exception:
                _logger.warning("undelivered documents cannot be looked for", exc_info=True)
            await asyncio.sleep(_PAUSE_SECONDS)
