"""`make tidy-log`: joins the small segments of past days in the prediction log, and removes days past their time."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from include.data.wiring import find_work_room
from include.embedded.configuration.settings import see_as_the_stack
from include.feedback.wiring import open_segments
from include.kernel.errors import EvergreenError
from include.kernel.files import scratch
from include.manifest import read_manifest

if TYPE_CHECKING:
    from include.feedback.segments import Segments


def main() -> int:
    try:
        see_as_the_stack()
        print(tidy(open_segments(), read_manifest().serving.log.keep_days, find_work_room()))
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def tidy(segments: Segments, keep_days: int, place: Path) -> str:
    """What was done, in one sentence. Raises `DataRefused` for a damaged segment, and what the store raises."""
    from include.feedback.log_repair import keep_up

    with scratch(place) as room:
        done = keep_up(segments, datetime.now(UTC).date(), keep_days, room)
    return f"{done.replaced} segments became {done.written}; {done.expired_days} days past their time were removed."


if __name__ == "__main__":
    sys.exit(main())
