"""What the environment says: the variables that hooks render from Airflow Connections, the same for process and pod."""

import os
from pathlib import Path

from include.kernel.errors import RequestInvalid

ROOT = Path(__file__).resolve().parents[2]  # of the project: paths in the manifest start here


def read_setting(name: str) -> str:
    """Raises `RequestInvalid` when the environment does not hold `name`."""
    value = os.environ.get(name)
    if not value:
        raise RequestInvalid(f"{name} is not set; start the stack with `make up`, or set it as README.md says.")
    return value
