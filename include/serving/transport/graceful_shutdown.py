"""The server's life: uvicorn's, with a farewell.

On SIGTERM, in this order:

    1. /ready turns 503, and every answer tells Envoy to send no more and the client to come on another connection.
    2. For `serving.drain_s` seconds requests are still accepted: whoever routes traffic needs that long to see it.
    3. The port closes; requests in flight are answered, for EVERGREEN_GRACE_S seconds at most.
    4. The prediction log is written out, and the process ends.

A second signal skips the second step.
"""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from include.serving.slot.contents import Loaded
from include.serving.transport.connection import Connection

if TYPE_CHECKING:
    from include.serving.slot.current_model import CurrentModel

TICKS = 10  # uvicorn's, a second


class GracefulServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, current_model: CurrentModel, drain_s: float) -> None:
        super().__init__(config)
        self._current_model = current_model
        self._drain_s = drain_s
        self._exit_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._exit_at is None and sig == signal.SIGTERM and isinstance(self._current_model.slot, Loaded):
            self._current_model.is_shutting_down = True
            self._exit_at = time.monotonic() + self._drain_s
        else:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        now = time.monotonic()
        if self._exit_at is not None and now >= self._exit_at and not self.should_exit:
            super().handle_exit(signal.SIGTERM, None)
        if counter % TICKS == 0:
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.sweep(now)
        return await super().on_tick(counter)
