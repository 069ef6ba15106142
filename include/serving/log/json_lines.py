"""The log of the server's processes: one JSON object a line, on stderr.

The text of an exception is left out: a library's message often repeats the value it choked on, and that may be a
person's. Its type and the places in the code stay, and so do the sentences of our own errors. JSON escapes what could
forge a second line. Light on purpose, since the process that explains loads it too.
"""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

from include.kernel.errors import EvergreenError

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonLines(logging.Formatter):
    """One object a line; what a call passes as `extra` becomes its fields."""

    def __init__(self, **always: str) -> None:
        super().__init__()
        self._always = always

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in STANDARD}
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._always,
            **fields,
        }
        if record.exc_info and record.exc_info[1]:
            entry["exception"] = _describe_error(record.exc_info[1])
        return json.dumps(entry, default=str)


def _describe_error(error: BaseException) -> dict[str, Any]:
    """Type and places; the message only of our own errors, which are written to be read by anybody."""
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    description: dict[str, Any] = {"type": type(error).__name__, "at": places}
    return description | {"message": str(error)} if isinstance(error, EvergreenError) else description


def configure(**always: str) -> None:
    """Every logger of the process, uvicorn's too, writes through the root."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(**always))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
