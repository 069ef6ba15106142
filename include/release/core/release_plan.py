"""From the manifest to the plan of one release: which of the steps before the switch it goes through."""

from include.kernel.errors import RequestInvalid
from include.release.core.rollout import ReleasePlan
from include.release.spec import ReleaseManifest


def build_plan(manifest: ReleaseManifest, version: str, experiment: bool = False) -> ReleasePlan:
    """`experiment`: a person asks for one. Raises `RequestInvalid` where the manifest does not say how."""
    release, spec = manifest.release, manifest.experiment
    if experiment and spec is None:
        raise RequestInvalid(
            f"Version {version} cannot be an experiment: the manifest has no section experiment; add it, as "
            "docs/releases.md, Experiment, shows, or leave the form's box empty."
        )
    if experiment and not manifest.serving.log.enabled:
        raise RequestInvalid(
            f"Version {version} cannot be an experiment: serving.log.enabled is false, and outcomes are counted from "
            "the prediction log; switch it on."
        )
    is_tried = spec is not None and (experiment or spec.version == version)
    return ReleasePlan(
        shadow=release.has_shadow,
        weights=release.canary.weights if release.strategy == "canary" else (),
        approval=release.approval == "before_switch",
        experiment=spec.share if spec and is_tried else 0,
    )
