"""Erase finished jobs whose time is over, a few at a time."""

from __future__ import annotations

import asyncio

from runner.orchestrator.dispatch import Dispatcher

LOOK = 30.0
"""Seconds between two looks for jobs whose time is over."""

BATCH = 500
"""Most jobs erased in one transaction; their parts go with them."""

BREATH = 0.1
"""Seconds between two batches, for those who wait to write."""


class Retention:
    """Erases what nobody is to keep any longer; any number may run on one database."""

    def __init__(self, dispatcher: Dispatcher, batch: int = BATCH) -> None:
        self._dispatcher, self._batch = dispatcher, batch

    async def run(self) -> None:
        """Look every half minute, until cancelled."""
        await self._dispatcher.forever(self.look, LOOK)

    async def look(self) -> None:
        """Erase all whose time is over: input, result, history and what Redis still holds."""
        while True:
            now = self._dispatcher.clock()
            erased = await self._dispatcher.store.purge(now, self._batch)
            if erased:
                await self._dispatcher.wire.clear(erased)
            if len(erased) < self._batch:
                return
            await asyncio.sleep(BREATH)
