"""What /model says: which model is held, who allowed it, by which hashes, and why it is served the way it is."""

from __future__ import annotations

from typing import Any

from include.kernel.errors import KeyInvalid
from include.model.blessing.blessing import Blessing
from include.serving.slot.admission import Admission
from include.serving.slot.contents import Loaded, Slot, SlotFile

# rows of people, and values that may be one person's alone
HIDDEN: Any = {"golden": True, "columns": {"__all__": {"low", "high"}}}
HASHES = ("digest", "manifest", "code", "policy", "report", "data")


def described(colour: str, slot: Slot, admission: Admission) -> dict[str, Any]:
    """Of a slot that holds nothing: `why`. Of a loaded one `why` is the reason of its `path`, compiled or generic."""
    file = slot.file.model_dump() if slot.file else dict.fromkeys(SlotFile.model_fields)
    told = {"slot": colour, "state": type(slot).__name__.lower(), **_trust(admission), **file}
    if not isinstance(slot, Loaded):
        return {**told, "why": slot.why}
    meta = slot.model.meta
    return {
        **meta.model_dump(mode="json", exclude=HIDDEN),
        **told,
        "path": meta.path,
        "loaded_at": slot.loaded_at.isoformat(),
        **_allowed(slot.blessing),
    }


def _trust(admission: Admission) -> dict[str, Any]:
    try:
        trusted = list(admission.trusted())
    except KeyInvalid:
        trusted = []
    asked = bool(trusted) or admission.unblessed == "refuse"
    return {"trusted_keys": trusted, "unblessed": "refuse" if asked else "allow"}


def _allowed(blessing: Blessing | None) -> dict[str, Any]:
    """Only what a trusted key signed; a blessing that was not verified is not told as one."""
    if blessing is None:
        return {"blessing": None, "blessed": None}
    content = blessing.model_dump(mode="json")
    who = {name: content[name] for name in ("run_id", "as_of", "verdict", "gate")}
    return {"blessed": {**who, "hashes": {name: content[name] for name in HASHES}}}
