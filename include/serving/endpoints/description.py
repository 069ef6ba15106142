"""What /model says: which model is held, who allowed it, by which hashes, and why it is served the way it is."""

from typing import Any

from include.kernel.errors import KeyInvalid
from include.model.blessing.blessing import Blessing
from include.serving.slot.admission import Admission
from include.serving.slot.contents import Loaded, Slot, SlotFile

# rows of people, and values that may be one person's alone
HIDDEN: Any = {"golden": True, "columns": {"__all__": {"low", "high"}}}
HASHES = ("digest", "manifest", "code", "policy", "report", "data")


def describe_slot(colour: str, slot: Slot, admission: Admission) -> dict[str, Any]:
    """Of a slot that holds nothing: `why`. Of a loaded one `why` is the reason of its `path`, compiled or generic."""
    file = slot.file.model_dump() if slot.file else dict.fromkeys(SlotFile.model_fields)
    fields = {"slot": colour, "state": type(slot).__name__.lower(), **_describe_trust(admission), **file}
    if not isinstance(slot, Loaded):
        return {**fields, "why": slot.why}
    meta = slot.model.meta
    return {
        **meta.model_dump(mode="json", exclude=HIDDEN),
        **fields,
        "path": meta.path,
        "loaded_at": slot.loaded_at.isoformat(),
        **_describe_blessing(slot.blessing),
    }


def _describe_trust(admission: Admission) -> dict[str, Any]:
    try:
        trusted = list(admission.read_trusted_keys())
    except KeyInvalid:
        trusted = []
    must_be_blessed = bool(trusted) or admission.unblessed == "refuse"
    return {"trusted_keys": trusted, "unblessed": "refuse" if must_be_blessed else "allow"}


def _describe_blessing(blessing: Blessing | None) -> dict[str, Any]:
    """Only what a trusted key signed; a blessing that was not verified is not told as one."""
    if blessing is None:
        return {"blessing": None, "blessed": None}
    content = blessing.model_dump(mode="json")
    identity = {name: content[name] for name in ("run_id", "as_of", "verdict", "gate")}
    return {"blessed": {**identity, "hashes": {name: content[name] for name in HASHES}}}
