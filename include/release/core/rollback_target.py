"""To which release a rollback goes: decided from the ledger alone, so that it works while the registry is away."""

from include.kernel.errors import NotBlessed, RequestInvalid
from include.release.core.release_history import REPLACED, ReleaseHistory, read_release
from include.release.core.rollout import Release


def find_rollback_target(
    history: ReleaseHistory, live: Release | None, requested: str | None = None
) -> tuple[str, str]:
    """The version and its signed blessing, not yet verified: the one asked for, or the last other one that served and
    was not turned down since, so that each rollback goes one further back.

    Raises `RequestInvalid`, and `NotBlessed` for a version that served before blessings were signed.
    """
    candidates = [
        entry
        for entry in history.served
        if (entry.subject == requested if requested else _may_serve(read_release(entry), live, history))
    ]
    if not candidates:
        raise RequestInvalid(f"{_explain_none(history, live, requested)}; see `release.live` in the ledger.")
    version, envelope = candidates[-1].subject, candidates[-1].details.get("blessing")
    if not envelope:
        raise NotBlessed(
            f"Version {version} served before blessings were signed, so it is never deployed again; name a later "
            "version, or train a new one."
        )
    return version, str(envelope)


def _may_serve(release: Release, live: Release | None, history: ReleaseHistory) -> bool:
    turned_down = history.turned_down.get(release.digest)
    return release != live and (turned_down is None or turned_down.how == REPLACED)


def _explain_none(history: ReleaseHistory, live: Release | None, requested: str | None) -> str:
    if requested:
        return f"Version {requested} never served, so there is nothing to roll back to"
    others = dict.fromkeys(entry.subject for entry in history.served if read_release(entry) != live)
    if not others:
        return "No other version ever served, so there is nothing to roll back to"
    return f"Each other version that served ({', '.join(others)}) was turned down since; name the one that is meant"
