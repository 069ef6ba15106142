"""`make feedback FILE=path`: outcomes of served predictions from a CSV or Parquet file into the prediction log."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from include.embedded.configuration.settings import apply_stack_defaults
from include.feedback.wiring import open_segments
from include.kernel.errors import EvergreenError, RequestInvalid
from include.manifest import read_manifest

if TYPE_CHECKING:
    from include.feedback.segments import Segments
    from include.feedback.spec import FeedbackManifest


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make feedback", description=__doc__)
    parser.add_argument("file", help="CSV or Parquet: request_id, label, and row and time if there are any")
    options = parser.parse_args(arguments)
    try:
        apply_stack_defaults()
        print(import_file(options.file, read_manifest(), open_segments()))
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def import_file(file: str, manifest: FeedbackManifest, segments: Segments) -> str:
    """What was done, in one sentence. Raises `RequestInvalid`, `DataRefused` and what the store raises."""
    from include.feedback.outcome_files import import_outcomes

    if not file:
        raise RequestInvalid("Name a file: make feedback FILE=path/to/outcomes.csv.")
    classes = (str(manifest.label.positive), str(manifest.label.negative))
    rows, new = import_outcomes(Path(file), classes, segments, datetime.now(UTC))
    return f"{rows} outcomes of {file} are kept." if new else f"The {rows} outcomes of {file} were kept already."


if __name__ == "__main__":
    sys.exit(main())
