"""Waits in the triggerer: asks one question of the stored state until it has an answer, then fires once.

It keeps nothing, so a restarted triggerer just asks again. The question runs in a thread, since reading files blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from include.retraining.wait_conditions import ask


class PollTrigger(BaseTrigger):
    """`question` is a name in include.retraining.wait_conditions, `interval` the seconds between two askings."""

    def __init__(self, question: str, arguments: dict[str, Any], interval: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.question = question
        self.arguments = arguments
        self.interval = interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        kwargs = {"question": self.question, "arguments": self.arguments, "interval": self.interval}
        return "evergreen.triggers.poll.PollTrigger", kwargs

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while (answer := await asyncio.to_thread(ask, self.question, self.arguments)) is None:
            await asyncio.sleep(self.interval)
        yield TriggerEvent(answer)  # type: ignore[no-untyped-call]
