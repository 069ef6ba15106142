"""Waits in the triggerer: asks one question of the stored state until it has an answer, then fires once.

It keeps nothing but what it opened, so a restarted triggerer just asks again. The question runs in a thread, since
reading files blocks.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from evergreen.hooks.connections import ConnectionsHook
from include.kernel.errors import Temporary
from include.manifest import Manifest
from include.retraining.wait_conditions import Answer, WaitConditions
from include.retraining.wiring import open_wait_conditions

log = logging.getLogger(__name__)


class PollTrigger(BaseTrigger):
    """`question` names one of include.retraining.wait_conditions, `interval` the seconds between two askings."""

    def __init__(self, question: str, arguments: dict[str, Any], interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.question = question
        self.arguments = arguments
        self.interval = interval
        self._opened: tuple[Manifest, WaitConditions] | None = None
        self._outage = ""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kwargs = {"question": self.question, "arguments": self.arguments, "interval": self.interval}
        return "evergreen.triggers.poll.PollTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while (answer := await asyncio.to_thread(self._ask)) is None:
            await asyncio.sleep(self.interval)
        yield TriggerEvent(answer)  # type: ignore[no-untyped-call]

    def _ask(self) -> Answer | None:
        """None also while what is asked is away: who waits for weeks rides over an outage. Anything else ends the wait,
        and the worker meets it again.
        """
        try:
            return self._ask_now()
        except (Temporary, OSError) as error:
            if str(error) != self._outage:
                log.warning("asked again in %g s: %s", self.interval, error)
            self._outage = str(error)
            return None

    def _ask_now(self) -> Answer | None:
        """By the manifest as it is now: what waits for weeks must see it change."""
        manifest = ConnectionsHook().manifest
        if self._opened is None or self._opened[0] is not manifest:
            self._opened = manifest, open_wait_conditions(manifest)
        return self._opened[1].ask(self.question, self.arguments)
