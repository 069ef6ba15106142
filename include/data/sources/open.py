"""Chooses the source of the manifest; each kind has a module of its own, imported when it is asked for."""

from include.data.sources.base import Source
from include.data.spec import DataManifest, FilesSource, ReplaySource, S3Source
from include.kernel.errors import RequestInvalid


def open_source(manifest: DataManifest, scenario: str | None = None) -> Source:
    """The source of the manifest. `scenario` changes rows openly and exists for the replay alone."""
    spec = manifest.source
    if scenario and not isinstance(spec, ReplaySource):
        raise RequestInvalid(f"Scenario {scenario!r} exists for the replay source only; leave it empty.")
    if isinstance(spec, ReplaySource):
        from include.data.sources.replay import Replay

        return Replay(spec, manifest.contract.id, scenario)
    if isinstance(spec, FilesSource):
        from include.data.sources.files import Files

        return Files(spec, manifest.declared_columns)
    if isinstance(spec, S3Source):
        from include.data.sources.s3 import S3

        return S3(spec, manifest.declared_columns)
    from include.data.sources.postgres import Postgres

    return Postgres(spec, manifest.contract.id, manifest.declared_columns)
