"""Looks for billing runs that nobody works on, at the start and every few minutes."""

import asyncio
import logging
from typing import Final

from billing.services.run_rescue import RunRescue

_logger = logging.getLogger(__name__)

_PAUSE_SECONDS: Final = 300.0


class RescueRunsWorker:
    """Repeats the rescue until it is cancelled."""

    def __init__(self, rescue: RunRescue) -> None:
        self._rescue = rescue

    async def run(self) -> None:
        """Look again and again; a failed look is followed by the next one."""
        while True:
            try:
                await self._rescue.rescue_runs()
            except Exception:
                _logger.warning("lost billing runs cannot be looked for", exc_info=True)
            await asyncio.sleep(_PAUSE_SECONDS)
