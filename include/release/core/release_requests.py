"""What becomes of a request that meets another: two deployments, a deployment and a rollback, one that comes late.

A newer request always wins, with two exceptions, both for deployments that no person asked for twice: one that meets a
rollback waits until the traffic is back, since a person who rolls back must not be overtaken by a pipeline; and one
whose event names an older version than the one that serves is let go. The form of `deploy` takes any blessed version.
"""

from include.release.core.rollout import DesiredState, Evidence, ObservedStatus

STALE_REQUEST = (
    "Version {version} is older than {live}, which serves, so the event that names it came too late; name it in the "
    "form of deploy, or roll back, if it is meant."
)
ROLLBACK_UNDER_WAY = (
    "A rollback to version {to} is under way ({by}), so the deployment of version {version} waits: it is tried again "
    "by itself, or clear the task when the rollback has ended."
)


def is_older(version: str, live: str) -> bool:
    """Whether a registry counted `version` before `live`; what is not a number is not older."""
    return version.isdecimal() and live.isdecimal() and int(version) < int(live)


def is_rolling_back(desired: DesiredState, observed: ObservedStatus, evidence: Evidence) -> bool:
    """Whether what is wanted is a rollback that has neither ended well nor been turned down."""
    return desired.kind == "rollback" and observed.live.release != desired.release and not evidence.is_turned_down
