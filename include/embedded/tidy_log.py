"""`make tidy-log`: joins the small segments of past days in the prediction log, and removes days past their time."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from include import factory
from include.embedded.settings import see_as_the_stack
from include.kernel.errors import EvergreenError
from include.kernel.files import scratch


def main() -> int:
    try:
        see_as_the_stack()
        print(tidied())
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def tidied() -> str:
    """What was done, in one sentence. Raises `DataRefused` for a damaged segment, and what the store raises."""
    from include.feedback.log_repair import keep_up

    today, keep_days = datetime.now(UTC).date(), factory.manifest().serving.log.keep_days
    with scratch(factory.work_room()) as room:
        done = keep_up(factory.segments(), today, keep_days, room)
    return f"{done.replaced} segments became {done.written}; {done.expired_days} days past their time were removed."


if __name__ == "__main__":
    sys.exit(main())
