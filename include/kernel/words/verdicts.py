"""What the trials of a release came to, and the name each stands under: written beside the target by whoever tried it.

A target keeps one verdict for each part (a file, an annotation); the machine, the alerts and the pages read them back.
"""

from enum import StrEnum
from typing import Final

ACCEPTED: Final = "accepted"  # ready, and smoke requests answered as expected
SHADOWED: Final = "shadowed"
EXPERIMENT: Final = "experiment"
APPROVED: Final = "approved"  # by a person, or by what the manifest makes of silence
SOAKED: Final = "soaked"
RECOVERED: Final = "recovered"


class Verdict(StrEnum):
    PENDING = "pending"
    PASSED = "passed"
    FAILED = "failed"


def name_canary(number: int) -> str:
    """The part of a canary's weight; the first is number 1."""
    return f"canary-{number}"
