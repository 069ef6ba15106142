"""What the ledger tells of releases: which of them served, and which were turned down since, by whom and why.

A person's rollback must not be undone by a pipeline that makes the same model again, and a second rollback must not
lead to what the first one left. So a release counts as turned down from the moment it is left or skipped by a rollback,
rejected or reverted, until it goes live again: by its digest, since the same content may be registered under another
version. One that gave way to an older version, by the form, comes back by a rollback, and by no event.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from include.kernel.ledger import Entry
from include.kernel.words import ledger_kinds as kinds
from include.release.core.release_requests import is_older
from include.release.core.rollout import Release

TOLD_KINDS = (kinds.RELEASE_LIVE, kinds.RELEASE_REJECTED, kinds.RELEASE_REVERTED, kinds.ROLLBACK_WANTED)
REPLACED = "replaced by an older version"
LEFT = "left"  # key of the details of rollback.wanted: the release that served when a person asked
REFUSAL = (
    "Version {version} was {how} by {who} ({why}) and has not gone live since, so the event that names it is let go; "
    "name it in the form of deploy if it is meant."
)


@dataclass(frozen=True)
class TurnedDown:
    version: str
    how: str
    who: str
    why: str

    def explain(self) -> str:
        return REFUSAL.format(**vars(self))


@dataclass(frozen=True)
class ReleaseHistory:
    """`served` are the entries of what went live, oldest first; `turned_down` goes by digest."""

    served: tuple[Entry, ...]
    turned_down: Mapping[str, TurnedDown]


def describe_left(live: Release | None) -> dict[str, Any]:
    """What `rollback.wanted` keeps of the release that is to be left."""
    return {LEFT: {"version": live.version, "digest": live.digest} if live else None}


def read_release_history(entries: Iterable[Entry]) -> ReleaseHistory:
    """`entries` are those of `TOLD_KINDS`, oldest first."""
    served: list[Entry] = []
    turned_down: dict[str, TurnedDown] = {}
    for entry in entries:
        if entry.what == kinds.RELEASE_LIVE:
            before = read_release(served[-1]) if served else None
            if before and is_older(entry.subject, before.version):
                replaced = TurnedDown(before.version, REPLACED, entry.who, entry.why)
                turned_down.setdefault(before.digest, replaced)
            served.append(entry)
            turned_down.pop(read_release(entry).digest, None)
        elif entry.what == kinds.ROLLBACK_WANTED:
            for left in _list_left(entry, served):
                turned_down[left.digest] = TurnedDown(left.version, "rolled back", entry.who, entry.why)
        elif entry.what in (kinds.RELEASE_REJECTED, kinds.RELEASE_REVERTED) and entry.details.get("digest"):
            how = entry.what.removeprefix("release.")
            turned_down[read_release(entry).digest] = TurnedDown(entry.subject, how, entry.who, entry.why)
    return ReleaseHistory(tuple(served), turned_down)


def _list_left(entry: Entry, served: list[Entry]) -> list[Release]:
    """What served when a person asked for `entry`, and all that had gone live since the version that they asked for.

    Entries of earlier versions do not name what served: then it is what had gone live last.
    """
    since = max((place for place, live in enumerate(served) if live.subject == entry.subject), default=len(served))
    releases = [read_release(live) for live in served[since + 1 :]] or list(map(read_release, served[-1:]))
    if left := entry.details.get(LEFT):
        releases.append(Release(left["version"], left["digest"]))
    return [release for release in releases if release.version != entry.subject]


def read_release(entry: Entry) -> Release:
    return Release(entry.subject, str(entry.details.get("digest")))


def find_followed_request(entries: Iterable[Entry], key: str, generation: int) -> Entry | None:
    """The entry by which a run asked for its release, where a request of another run has `generation`, a later one.

    A run asks once: whoever clears its task long afterwards would undo what was wanted since.
    """
    return next((entry for entry in entries if entry.key == key and entry.details["generation"] < generation), None)
