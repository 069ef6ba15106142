"""Guards of a release, each switched off where it stands: in the process of a task, before the task begins."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any


def switch_off(guard: str) -> None:
    MUTANTS[guard]()


def _fence() -> None:
    """A newer request stops nobody."""
    from include.release.targets.local.target import LocalTarget

    _put(LocalTarget, "_must_be_desired", lambda self, desired: None)


def _lock() -> None:
    """Two may write at once."""
    from include.release.targets.local.target import LocalTarget

    _put(LocalTarget, "_lock", lambda self: nullcontext())


def _verification() -> None:
    """No smoke request, no golden row."""
    from include.release.service.driver import ReleaseDriver

    _put(ReleaseDriver, "_run_smoke_requests", lambda self, colour, desired: None)


def _standby() -> None:
    """What served before is not kept as the one that takes over."""
    from dataclasses import replace

    from include.release.targets.local import envoy_routes

    render = envoy_routes.render

    def alone(route: Any) -> str:
        return render(replace(route, standby=None))

    _put(envoy_routes, "render", alone)


def _retries() -> None:
    """Nobody else is asked when a slot dies with a request in its hand."""
    from include.release.targets.local import envoy_routes

    _put(envoy_routes, "RETRY_ON_STANDBY", {"retry_on": "", "num_retries": 0})


def _confirmation() -> None:
    """A route that was written counts as taken over."""
    from include.release.targets.local.target import LocalTarget

    _put(LocalTarget, "_await_route", lambda self: None)
    _put(LocalTarget, "_await_slot_health", lambda self, desired, *colours: None)


def _soak() -> None:
    """Every probe of what is live counts as answered."""
    from include.release.service.driver import ReleaseDriver

    _put(ReleaseDriver, "_is_served", lambda self, release: True)


def _analysis() -> None:
    """A canary passes, whatever its counters say."""
    from include.kernel.words.verdicts import Verdict
    from include.release.core import canary

    _put(canary, "judge", lambda periods, spec, is_last: canary.Judgement(Verdict.PASSED, "nobody looked"))


def _local_copies() -> None:
    """A version has to be fetched from MLflow each time."""
    from include.release.targets.local.target import LocalTarget

    _put(LocalTarget, "find_artifact", lambda self, digest: None)


def _patience() -> None:
    """A lock is waited for without an end."""
    from include.release.targets.local import records

    _put(records, "LOCK_TIMEOUT_S", None)


def _put(place: Any, name: str, value: Any) -> None:
    assert hasattr(place, name), f"there is no {name} any more: this mutant switches nothing off"
    setattr(place, name, value)


MUTANTS: dict[str, Callable[[], None]] = {
    "fence": _fence,
    "lock": _lock,
    "verification": _verification,
    "standby": _standby,
    "retries": _retries,
    "confirmation": _confirmation,
    "soak": _soak,
    "analysis": _analysis,
    "local copies": _local_copies,
    "patience": _patience,
}
