"""Put first on a child's PYTHONPATH, this kills the child from inside its own interpreter before its n-th write.

Python tells every file it opens for writing and every name it makes, moves or removes to an audit hook, before it does
it. So production code needs no switch for this: it runs as it is. KILL_AT=0 only counts; the count goes to KILL_LOG.
What native code writes by itself (Parquet) is not told; kills by the clock cover it.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys

AT = int(os.environ["KILL_AT"])
LOG = os.open(os.environ["KILL_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
UNDER = os.environ["KILL_UNDER"]
NAMING = {"os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate"}
seen = 0


def _is_write(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return bool(writes) and isinstance(path, str) and path.startswith(UNDER)
    if event not in NAMING:
        return False
    path = os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes | os.PathLike) else UNDER
    return path.startswith(UNDER) or not path.startswith("/")  # relative: inside a directory that is being removed


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    global seen
    if _is_write(event, arguments):
        seen += 1
        if seen == AT:
            os.write(LOG, f"{seen} {event} {arguments[0]!s}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(_hook)
atexit.register(lambda: os.write(LOG, f"{seen} in all\n".encode()))
