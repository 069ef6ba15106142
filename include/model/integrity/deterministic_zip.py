"""The same model as the same bytes, in every process.

skops writes the memory address of every object into its file, names its members by it, and stamps them with the time.
So two trainings on the same rows used to have two digests, and nobody could tell a reproduced model from another one.
Here addresses become numbers in the order in which they first appear, and times become the first day a zip can hold.
What skops reads back is unchanged: an address serves only to say "the same object as there".
"""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

SCHEMA = "schema.json"
EPOCH = (1980, 1, 1, 0, 0, 0)


def make_deterministic(data: bytes) -> bytes:
    """The skops file `data` with ids counted from zero, members named after them in that order, and no times."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(members.pop(SCHEMA))
    ids: dict[int, int] = {}
    files: dict[str, str] = {}
    for state in _iterate_states(schema):
        if "__id__" in state:
            state["__id__"] = ids.setdefault(state["__id__"], len(ids))
        if state.get("file") in members:
            name = state["file"]
            state["file"] = files.setdefault(name, f"{len(files)}.{name.rpartition('.')[2]}")
    renamed = {new: members[old] for old, new in files.items()}
    return _pack_members({**renamed, SCHEMA: json.dumps(schema, indent=1).encode()})


def _iterate_states(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of the schema, parents first, in the order in which they stand."""
    if isinstance(value, dict):
        yield value
        for inner in list(value.values()):
            yield from _iterate_states(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _iterate_states(inner)


def _pack_members(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), content)
    return buffer.getvalue()
