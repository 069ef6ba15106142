"""`make tidy-log`: joins the small segments of past days in the prediction log, and removes days past their time."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from include.data.wiring import find_work_room
from include.embedded.configuration.settings import apply_stack_defaults
from include.feedback.wiring import open_segments
from include.kernel.errors import EvergreenError
from include.kernel.files import open_scratch_directory
from include.manifest import read_manifest

if TYPE_CHECKING:
    from include.feedback.segments import Segments


def main() -> int:
    try:
        apply_stack_defaults()
        print(run_repair(open_segments(), read_manifest().serving.log.keep_days, find_work_room()))
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def run_repair(segments: Segments, keep_days: int, scratch_root: Path) -> str:
    """What was done, in one sentence. Raises `DataRefused` for a damaged segment, and what the store raises."""
    from include.feedback.log_repair import repair_log

    with open_scratch_directory(scratch_root) as workspace:
        report = repair_log(segments, datetime.now(UTC).date(), keep_days, workspace)
    return (
        f"{report.replaced} segments became {report.written}; {report.expired_days} days past their time were removed."
    )


if __name__ == "__main__":
    sys.exit(main())
