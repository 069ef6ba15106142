"""POST /admin/reload: the slot file is read again, what it names is loaded beside the model that serves, then swapped.

A release of the local target restarts the idle slot instead; this is for a slot without a partner, for keys that
changed and for a slot that broke for a reason outside of it. Loading runs in a thread, so requests go on; those in
flight end on the model they began with (see current_model). A new one that cannot serve leaves the old one serving, and
the answer says why. Every call leaves a line in the audit log, whatever came of it.
"""

import asyncio
import logging
from dataclasses import dataclass

import anyio.to_thread
from fastapi import Request, Response
from fastapi.responses import JSONResponse

from include.serving.exchange import Problem
from include.serving.service import Service
from include.serving.slot import contents as slots
from include.serving.slot.admission import Admission
from include.serving.slot.contents import Empty, Loaded, Slot

audit = logging.getLogger("evergreen.audit")


@dataclass(frozen=True)
class ReloadOutcome:
    status: int
    message: str


class Reload:
    """One at a time: `await reload(request)`."""

    def __init__(self, service: Service, admission: Admission) -> None:
        self._service = service
        self._admission = admission
        self._lock = asyncio.Lock()

    async def __call__(self, request: Request) -> Response:
        before = self._service.current_model.version
        outcome = await self._reload()
        slot = self._service.current_model.slot
        now = {"version": self._service.current_model.version, "digest": slot.file.digest if slot.file else None}
        self._write(request, outcome, before, now["version"] or "none")
        if outcome.status != 200:
            return JSONResponse(Problem(outcome.status, outcome.message).build_document(), outcome.status)
        return JSONResponse({"status": outcome.message, "before": before, **now})

    async def _reload(self) -> ReloadOutcome:
        if self._lock.locked():
            return ReloadOutcome(409, "A reload is under way; ask again when it has ended.")
        if self._service.current_model.is_shutting_down:
            return ReloadOutcome(409, "The server is shutting down; ask the other slot.")
        async with self._lock:
            settings = self._service.settings
            loaded = await anyio.to_thread.run_sync(
                slots.load, settings.serving_dir, settings.slot, self._admission, abandon_on_cancel=False
            )
            return self._take(loaded)

    def _take(self, slot: Slot) -> ReloadOutcome:
        current_model = self._service.current_model
        if isinstance(slot, Loaded) or not isinstance(current_model.slot, Loaded):
            current_model.swap(slot)
            self._service.metrics.publish_slot(slot)
        if isinstance(slot, Loaded):
            return ReloadOutcome(200, "loaded")
        effect = (
            f"version {current_model.version} goes on serving"
            if isinstance(current_model.slot, Loaded)
            else "nothing serves"
        )
        return ReloadOutcome(409 if isinstance(slot, Empty) else 422, f"{slot.why.rstrip('.')}; {effect}.")

    def _write(self, request: Request, outcome: ReloadOutcome, before: str, now: str) -> None:
        host = request.client.host if request.client else "unknown"
        fields = {"caller": request.scope["state"].get("caller"), "from": host, "status": outcome.status}
        audit.info("reload: %s", outcome.message, extra={**fields, "before": before, "version": now})
