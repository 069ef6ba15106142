"""`make feedback FILE=path`: outcomes of served predictions from a CSV or Parquet file into the prediction log."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from include import factory
from include.embedded.settings import see_as_the_stack
from include.kernel.errors import EvergreenError, RequestInvalid


def main(arguments: list[str] | None = None) -> int:
    asked = argparse.ArgumentParser(prog="make feedback", description=__doc__)
    asked.add_argument("file", help="CSV or Parquet: request_id, label, and row and time if there are any")
    given = asked.parse_args(arguments)
    try:
        see_as_the_stack()
        print(imported(given.file))
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def imported(file: str) -> str:
    """What was done, in one sentence. Raises `RequestInvalid`, `DataRefused` and what the store raises."""
    from include.feedback.outcome_files import import_outcomes

    if not file:
        raise RequestInvalid("Name a file: make feedback FILE=path/to/outcomes.csv.")
    label = factory.manifest().label
    classes = (str(label.positive), str(label.negative))
    rows, new = import_outcomes(Path(file), classes, factory.segments(), datetime.now(UTC))
    return f"{rows} outcomes of {file} are kept." if new else f"The {rows} outcomes of {file} were kept already."


if __name__ == "__main__":
    sys.exit(main())
