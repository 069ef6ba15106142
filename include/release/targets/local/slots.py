"""Two slot processes, which a process manager owns: a child of an Airflow task would die with its task."""

import json
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import httpx
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from include.kernel.errors import ServiceUnavailable
from include.kernel.files import write_atomic
from include.kernel.words.colours import Colour
from include.release.core.release_record import build_isolated_route
from include.release.core.rollout import DesiredState, Release, Slot
from include.release.targets.base import Slots
from include.release.targets.local.traffic import LocalTraffic

ALREADY_STARTED = 60  # a fault of supervisor's
STOP_TIMEOUT_S = 20.0  # the process manager kills after ten


class LocalSlots(LocalTraffic, Slots):
    def _read_slot(self, colour: Colour) -> Slot:
        staged = self._read_staged(colour)
        return Slot(staged, ready=staged is not None and self._fetch_ready_release(colour) == staged)

    def _fetch_ready_release(self, colour: Colour) -> Release | None:
        """What the slot's process says it serves; None unless it is ready."""
        try:
            answer = self._http.get(f"{self._addresses.slots[colour]}/ready")
            model = answer.json() if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None
        return Release(str(model["version"]), str(model["digest"])) if model else None

    def explain_not_ready(self, colour: Colour) -> str:
        try:
            answer = self._http.get(f"{self._addresses.slots[colour]}/model").json()
        except (httpx.HTTPError, ValueError):
            return f"slot {colour} does not answer"
        return str(answer.get("why") or answer.get("state") or "it does not say why")

    def explain_refusal(self, colour: Colour, release: Release) -> str | None:
        try:
            answer = self._http.get(f"{self._addresses.slots[colour]}/model").json()
        except (httpx.HTTPError, ValueError):
            return None
        tried_release = Release(str(answer.get("version")), str(answer.get("digest")))
        return str(answer["why"]) if answer.get("state") == "broken" and tried_release == release else None

    def install_release(self, colour: Colour, desired: DesiredState, artifact: Path) -> None:
        self._keep_artifact(artifact, desired.release.digest)
        with self._hold_fence(desired) as route:
            self._must_not_be_live(colour, route)
            self._write_route(build_isolated_route(route, desired))
            content = {**asdict(desired.release), "generation": desired.generation, "blessing": desired.blessing}
            write_atomic(self._locate_slot_file(colour), json.dumps(content))
        self._await_route()
        self._restart(colour, desired)

    def nudge(self, colour: Colour) -> None:
        """Restarts a slot whose process holds another release than its file names, or does not run at all.

        That is what a kill between writing the file and restarting the process leaves behind.
        """
        try:
            model = self._http.get(f"{self._addresses.slots[colour]}/model").json()
            release = Release(str(model["version"]), str(model["digest"]))
        except (httpx.HTTPError, ValueError, KeyError):
            return self._start(colour)
        if release != self._read_staged(colour):
            self._restart(colour)
        return None

    def discard(self, colour: Colour, desired: DesiredState) -> None:
        with self._hold_fence(desired) as route:
            self._must_not_be_live(colour, route)
            self._write_route(build_isolated_route(route, desired))
            self._locate_slot_file(colour).unlink(missing_ok=True)
        self._await_route()
        self._restart(colour, desired)

    def _restart(self, colour: Colour, desired: DesiredState | None = None) -> None:
        """Stops a slot under the lock: who was held up for a minute must not stop one that has gone live since.

        Only the signal is sent there, since a slot takes a second to end. Starting is harmless, whoever does it.
        """
        name = f"slot-{colour}"
        with self._connect_supervisor(name) as manager:
            with self._hold_fence(desired) as route:
                self._must_not_be_live(colour, route)
                with suppress(xmlrpc.client.Fault):  # not running is what we want
                    manager.supervisor.stopProcess(name, False)
            self._await_end(manager, name)
            try:
                manager.supervisor.startProcess(name, False)
            except xmlrpc.client.Fault as fault:  # brought back by the manager itself, since its file was written
                if fault.faultCode != ALREADY_STARTED:
                    raise

    @staticmethod
    def _await_end(manager: xmlrpc.client.ServerProxy, name: str) -> None:
        """Until the process has ended, or somebody else has started it anew."""

        def is_stopping() -> bool:
            return manager.supervisor.getProcessInfo(name)["statename"] == "STOPPING"  # type: ignore[index,call-overload]

        attempts = Retrying(stop=stop_after_delay(STOP_TIMEOUT_S), wait=wait_fixed(0.05), retry=retry_if_result(bool))
        try:
            attempts(is_stopping)
        except RetryError as error:
            raise ServiceUnavailable(
                f"{name} has not ended within {STOP_TIMEOUT_S:g} s; look at `make status`, the step is repeated."
            ) from error

    def _start(self, colour: Colour) -> None:
        with self._connect_supervisor(f"slot-{colour}") as manager, suppress(xmlrpc.client.Fault):  # running already
            manager.supervisor.startProcess(f"slot-{colour}", False)

    @contextmanager
    def _connect_supervisor(self, program: str) -> Iterator[xmlrpc.client.ServerProxy]:
        try:
            with xmlrpc.client.ServerProxy(self._addresses.supervisor) as manager:
                yield manager
        except (OSError, xmlrpc.client.Error) as error:
            raise ServiceUnavailable(
                f"The process manager did not start {program} ({type(error).__name__}); start it with `make up`."
            ) from error
