"""What goes into a job and what comes out: the one protocol between Airflow and the work.

A `JobRequest` travels in by environment variable, a `JobResult` out by file. The same request therefore starts the
same work inline, as a process or as a pod; data itself travels by URI. Time (`as_of`) and `intent` are fields like any
other: they are set once, at the DAG's edge, and no code behind this line ever asks the clock what day it is.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.core.errors import RequestInvalid

PROTOCOL: Final = 1
