"""What a model server is opened with, by its environment: its manifest, and where its prediction log goes.

Called at the edge alone, when a server starts; below it, all of this is passed in.
"""

from functools import partial

from include import manifest
from include.data.wiring import has_snapshots
from include.feedback.wiring import open_segments
from include.kernel.errors import ManifestInvalid
from include.serving.app import build_broken_service, build_service
from include.serving.service import Service
from include.serving.settings import Settings


def open_service(settings: Settings) -> Service:
    """A manifest that cannot be read breaks the slot, with its sentence."""
    open_place = partial(open_segments, attempts=1) if has_snapshots() else None
    try:
        sections = manifest.load(settings.manifest) if settings.manifest else None
    except ManifestInvalid as error:
        return build_broken_service(settings, str(error))
    return build_service(settings, sections, open_place)
