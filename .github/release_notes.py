"""A tag is a release only if the version and the changelog say so; prints the changelog's section for its page.

    python .github/release_notes.py v0.2.0

The standard library alone, since it runs before anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class NotReady(Exception):
    """What has to be changed before the tag can be a release."""


def read_notes(tag: str, pyproject: str, changelog: str) -> str:
    """The section of the tag's version, without its heading."""
    version = tomllib.loads(pyproject)["project"]["version"]
    if tag != f"v{version}":
        raise NotReady(f"The tag is {tag}, and pyproject.toml says {version}: tag v{version}, or change the version.")
    found = re.search(rf"^## \[{re.escape(version)}\] - (.+)\n((?:(?!## ).*\n?)*)", changelog, re.MULTILINE)
    if not found:
        raise NotReady(f"CHANGELOG.md has no section `## [{version}] - <date>`.")
    date, notes = found[1].strip(), found[2].strip()
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        raise NotReady(f"CHANGELOG.md dates {version} as {date!r}; write the day of the release, such as 2026-12-24.")
    if not notes:
        raise NotReady(f"The section of {version} in CHANGELOG.md is empty.")
    return notes


def main(tag: str) -> int:
    try:
        notes = read_notes(tag, (ROOT / "pyproject.toml").read_text(), (ROOT / "CHANGELOG.md").read_text())
    except NotReady as reason:
        print(reason, file=sys.stderr)
        return 1
    print(notes)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
