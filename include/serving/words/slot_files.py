"""The folder a slot reads: a release writes it, on a disk or into the objects of a cluster, and the server loads it.

slots/<colour>.json         the release this slot holds
artifacts/<digest>/         the model, verified when it was put there
blessings/<sha256>.json     the signed document that allows it
route/routes.yaml           where traffic goes; the proxy watches it
"""

from pathlib import Path

SLOTS, ARTIFACTS, BLESSINGS, ROUTE = "slots", "artifacts", "blessings", "route"


def locate_slot_file(root: Path, colour: str) -> Path:
    return root / SLOTS / f"{colour}.json"


def locate_artifact(root: Path, digest: str) -> Path:
    return root / ARTIFACTS / digest


def locate_blessing(root: Path, sha256: str) -> Path:
    return root / BLESSINGS / f"{sha256}.json"


def locate_routes_file(root: Path) -> Path:
    return root / ROUTE / "routes.yaml"
