"""To which release a rollback goes: decided from the ledger alone, so that it works while the registry is away."""

from collections.abc import Iterable

from include.kernel.errors import NotBlessed, RequestInvalid
from include.kernel.ledger import Entry
from include.release.core.rollout import Release


def find_rollback_target(
    live_entries: Iterable[Entry], live: Release | None, requested: str | None = None
) -> tuple[str, str]:
    """The version and its signed blessing, not yet verified: the one asked for, or the last other one that served.

    `served` are the ledger's release.live entries, oldest first. Raises `RequestInvalid`, and `NotBlessed` for a
    version that served before blessings were signed.
    """
    candidates = [
        entry for entry in live_entries if (entry.subject == requested if requested else _read_release(entry) != live)
    ]
    if not candidates:
        what = f"Version {requested} never served" if requested else "No other version ever served"
        raise RequestInvalid(f"{what}, so there is nothing to roll back to; see `release.live` in the ledger.")
    version, envelope = candidates[-1].subject, candidates[-1].details.get("blessing")
    if not envelope:
        raise NotBlessed(
            f"Version {version} served before blessings were signed, so it is never deployed again; name a later "
            "version, or train a new one."
        )
    return version, str(envelope)


def _read_release(entry: Entry) -> Release:
    return Release(entry.subject, entry.details["digest"])
