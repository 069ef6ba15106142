"""`python -m include.serving`: one model server on one port, told by its environment (see settings).

There is no access log: see telemetry for the lines there are. What SIGTERM does is told in `graceful_shutdown`.
"""

import gc
import os
import sys
from functools import partial
from typing import Any, cast

from pydantic import ValidationError

from include.kernel.blocked_imports import block_imports
from include.kernel.errors import EvergreenError
from include.serving.settings import Settings

SWITCH_S = 0.0005  # how long another thread may keep the event loop waiting for the interpreter's lock; 5 ms by default
USAGE = 64  # EX_USAGE


def main() -> int:
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
    from include.serving.log import json_lines
    from include.serving.transport import telemetry
    from include.serving.transport.connection import Connection, ConnectionPolicy
    from include.serving.transport.fast_path import build_fast_path
    from include.serving.transport.graceful_shutdown import GracefulServer
    from include.serving.wiring import open_service

    json_lines.configure(slot=settings.slot)
    tracing = telemetry.make_tracing(settings.slot)

    # one request at a time on one core: threads for a handful of rows halved the requests a second
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with block_imports():
        service = open_service(settings)
        app = create_app(service, tracing)
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # what was loaded stays; a collection need not look at it again
    policy = ConnectionPolicy(service, app.handlers, None if tracing else build_fast_path(app, service))
    config = uvicorn.Config(
        tracing.wrap_app(app) if tracing else app,
        log_config=None,  # its lines go where ours go
        http=cast("Any", partial(Connection, policy)),
        host=settings.bind,
        port=settings.port,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.grace_s,
    )
    GracefulServer(config, service.current_model, service.spec.drain_s).run()


if __name__ == "__main__":
    sys.exit(main())
