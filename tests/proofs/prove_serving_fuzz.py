"""`make prove-serving-fuzz`: thousands of odd requests to real model servers, and no 5xx.

Both forms of the model are asked: the compiled one, which serves by default, and the pipeline, which a frame of pandas
stands before. What is asked and what must hold of every answer is in tests.fuzzing. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import httpx
from rich.console import Console

from tests import fuzzing
from tests.fuzzing import Tally
from tests.model_server import Form, model_server

WANTED = 5_000
BY_DOCUMENT: Mapping[Form, int] = {"compiled": 90, "generic": 10}  # of each route with a body, allowed and forbidden
BY_DAMAGE: Mapping[Form, int] = {"compiled": 450, "generic": 100}  # of each form of a body

console = Console(width=130)


def prove(form: Form, directory: Path) -> Tally:
    """The answers of one server; AssertionError or schemathesis' own failure tells of the request that broke it."""
    tally = Tally()
    with model_server(directory, form) as url:
        told = httpx.get(f"{url}/model", trust_env=False).json()
        assert told["path"] == form
        steps = (
            ("by the document", partial(fuzzing.by_document, url, BY_DOCUMENT[form], tally)),
            ("by damage", partial(fuzzing.by_damage, url, BY_DAMAGE[form], tally)),
        )
        for line in fuzzing.progress(tally, *steps):
            console.print(f"{form}, {line}, {tally.cases} in all; by status {tally.statuses()}")
        assert httpx.get(f"{url}/ready", trust_env=False).status_code == 200, "the server did not come through"
    return tally


def main() -> int:
    started, total, why = time.monotonic(), Tally(), ""
    with tempfile.TemporaryDirectory(prefix="evergreen-fuzz-") as place:
        try:
            for form in BY_DOCUMENT:
                (directory := Path(place) / form).mkdir()
                total.answers += prove(form, directory).answers
        except (Exception, BaseExceptionGroup) as error:  # whatever stops it is the finding
            why = f"{type(error).__name__}: {error}"[:2000]
            console.print(why)
    seconds = round(time.monotonic() - started, 1)
    ok = not why and total.cases >= WANTED
    figures = {"cases": total.cases, "wanted": WANTED, "statuses": total.statuses(), "seconds": seconds, "why": why}
    print(json.dumps({"ok": ok, **figures}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
