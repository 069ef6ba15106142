"""`make contract SAMPLE=path`: a first contract section from a sample file, to be read and edited by a person."""

import argparse
import sys
import tempfile
from pathlib import Path

from include.data.core.proposal import propose
from include.data.validation.sample_profile import survey_sample
from include.kernel.errors import EvergreenError, RequestInvalid
from include.kernel.files import write_atomic
from include.manifest import read_manifest


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make contract", description=__doc__)
    parser.add_argument("sample", help="CSV or Parquet file")
    parser.add_argument("--label", default="", help="column that holds the outcome")
    parser.add_argument("--out", default="", help="file to write; empty: print")
    options = parser.parse_args(arguments)
    try:
        text = propose_contract(options.sample, options.label or None, read_manifest().label.column)
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if options.out:
        write_atomic(Path(options.out), text)
        print(f"{options.out} holds a proposal; edit it, then put it in the place of the contract section.")
    else:
        print(text, end="")
    return 0


def propose_contract(sample: str, label: str | None, label_column: str) -> str:
    """The YAML; without a `label` it is `ours`, if the sample has it. Raises `RequestInvalid` and `DataRefused`."""
    if not sample:
        raise RequestInvalid("Name a file: make contract SAMPLE=path/to/day.csv (and LABEL=column, OUT=file).")
    with tempfile.TemporaryDirectory(prefix="evergreen-sample-") as workspace:
        columns, rows = survey_sample(Path(sample), Path(workspace))
    known = label_column if label_column in {column.name for column in columns} else None
    return propose(columns, rows, label or known, sample)


if __name__ == "__main__":
    sys.exit(main())
