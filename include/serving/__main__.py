"""`python -m include.serving`: one model server on one port, told by its environment (see settings).

The access log is off: it would be one line a request with nothing that /metrics does not say. SIGTERM lets open
requests finish and then ends the process.
"""

from __future__ import annotations

import logging
import os
import sys

from pydantic import ValidationError

from include.core.errors import EvergreenError
from include.serving.lean import lean_imports
from include.serving.settings import Settings

USAGE = 64  # EX_USAGE


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings()
    except ValidationError as error:
        names = ", ".join(f"EVERGREEN_{str(item['loc'][0]).upper()}" for item in error.errors())
        print(f"Set {names} for the model server.", file=sys.stderr)
        return USAGE
    try:
        serve(settings)
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def serve(settings: Settings) -> None:
    import uvicorn

    from include.serving.app import create_app

    # one request at a time on one core: threads for a handful of rows halved the requests a second
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with lean_imports():
        app = create_app(settings)
    uvicorn.run(
        app,
        host=settings.bind,
        port=settings.port,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.grace_s,
    )


if __name__ == "__main__":
    sys.exit(main())
