"""`make check-manifest`: the manifest and its false alarms in two lines, or the one sentence that says what is wrong.

More than its types are checked: candidates, their parameters and the feature function, which would otherwise be found
wrong by the first training.
"""

import sys

from include.kernel.errors import EvergreenError
from include.manifest import Manifest, read_manifest
from include.monitoring.core.false_alarms import compute_budget


def main() -> int:
    try:
        manifest = read_manifest()
        _check_names(manifest)
    except EvergreenError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(describe_manifest(manifest))
    print(f"monitor: {compute_budget(manifest.monitor).sentence}")
    return 0


def _check_names(manifest: Manifest) -> None:
    from include.model import features, pipelines

    for kind, params in manifest.train.candidates.items():
        space = manifest.train.tuning.space.get(kind, {})
        ends = [{name: getattr(bounds, end) for name, bounds in space.items()} for end in ("low", "high")]
        for searched in ({}, *ends) if space else ({},):
            pipelines.check_params(kind, {**params, **searched}, manifest.train.seed)
    features.resolve(manifest.train.features)


def describe_manifest(manifest: Manifest) -> str:
    source = f"{manifest.source.kind} source {manifest.source.place}"
    inputs = f"{len(manifest.contract.columns)} inputs"
    candidates = " and ".join(manifest.train.candidates)
    return (
        f"{manifest.name} is valid: {source}, {inputs}, label {manifest.label.column} "
        f"known after {manifest.label.delay_days} days, candidates {candidates}, digest {manifest.digest[:12]}"
    )


if __name__ == "__main__":
    sys.exit(main())
