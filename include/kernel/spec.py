"""What the sections of the manifest share: strictness, common types, and what every slice may know of the whole.

Each slice has a `spec.py` with its own sections and a view of the manifest that holds these and no others, so that a
function which takes the view cannot read what is none of its business. include/manifest.py puts the views together.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]


Days = Annotated[int, Field(ge=0)]


Count = Annotated[int, Field(ge=1)]


Severity = Literal["critical", "warning"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class BaseManifest(Section):
    """What every slice may know: whose pipeline this is, where it runs, and the identity of all its numbers."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    owner: str
    target: Literal["local", "kubernetes"]

    @property
    def digest(self) -> str:
        """sha256 over the canonical JSON: comments and order in the file do not change it."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
