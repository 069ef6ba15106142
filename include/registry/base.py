"""What a release asks of a registry, as small abstract classes: MLflow is one, tests bring a shelf."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path


class ArtifactSource(ABC):
    @abstractmethod
    def fetch(self, version: str, destination: Path) -> Path:
        """The serving artifact of a version, below `destination`. Raises `ServiceUnavailable`."""


class ReleaseMarks(ABC):
    """What is said of versions. Raises `ServiceUnavailable` when the registry cannot be reached."""

    @abstractmethod
    def fetch_blessing(self, version: str) -> str:
        """The signed envelope: whoever reads it has to verify it before believing a word. Raises `NotBlessed`."""

    @abstractmethod
    def find_champion(self) -> str | None: ...

    @abstractmethod
    def promote(self, version: str) -> None:
        """Makes it the champion, and takes all marks away."""

    @abstractmethod
    def list_soaking(self) -> list[str]:
        """The versions that are marked as soaking."""

    @abstractmethod
    def unmark_soaking(self, versions: Iterable[str]) -> None: ...
