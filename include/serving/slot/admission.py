"""Whether a slot may load what its file names: only with a blessing that a key of this server's environment signed.

The place a slot reads from (slots/, artifacts/, blessings/) is written by others, so nothing there vouches for itself:
a digest beside an artifact proves that the copy is whole, not that anybody allowed it. The signature does, and it is
looked at first, before a byte of the artifact is read. The keys are public halves, in a file that is read at every
load (a key that is added counts at the next reload), or in the environment where there is no file to mount.

A server without a key refuses everything. Tests, benchmarks and strangers who try the container say
EVERGREEN_UNBLESSED=allow, and /model and the log repeat it; once a key is set, that word has no effect: nobody forgets
it in production. Where several teams sign with one key, EVERGREEN_MODEL names the one model that is served here.
"""

import logging
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from include.kernel.errors import ArtifactRejected, KeyInvalid, NotBlessed
from include.model.blessing import blessing as blessings
from include.model.blessing.blessing import Blessing, TrustedKeys
from include.serving.settings import Settings
from include.serving.spec import ServingSpec

log = logging.getLogger(__name__)
MAX_ENVELOPE = 1 << 20  # bytes; a blessing of ours takes some thousand
STAGE_AGAIN = "deploy the version again"


@dataclass(frozen=True)
class Admission:
    """What this server asks of a release. `keys` is PEM or the base64 lines within, `keys_file` a file of the same."""

    keys: str = ""
    keys_file: Path | None = None
    unblessed: Literal["refuse", "allow"] = "refuse"
    model: str | None = None
    skew: Literal["refuse", "warn"] = "refuse"

    def read_trusted_keys(self) -> TrustedKeys:
        """Key id -> key; empty when none was ever named. Raises `KeyInvalid`."""
        text = f"{self.keys}\n{self._read_keys_file()}"
        return blessings.parse_public_keys(text) if self.keys or self.keys_file else {}

    def _read_keys_file(self) -> str:
        try:
            return self.keys_file.read_text() if self.keys_file else ""
        except (OSError, UnicodeDecodeError) as error:
            raise KeyInvalid(
                f"The trusted keys in {self.keys_file} cannot be read; correct EVERGREEN_TRUSTED_KEYS_FILE."
            ) from error

    def verify_blessing(self, directory: Path, sha256: str | None, version: str, digest: str) -> Blessing | None:
        """The verified blessing, or None where none is asked for. `sha256` is its hash, and its name in `directory`.

        Raises `NotBlessed` or `KeyInvalid` with the sentence.
        """
        trusted = self.read_trusted_keys()
        if not trusted and self.unblessed == "allow":
            log.warning("version %s is loaded without a look at its blessing: EVERGREEN_UNBLESSED=allow", version)
            return None
        if not trusted:
            raise NotBlessed(
                "This server trusts no key, so it loads nothing; set EVERGREEN_TRUSTED_KEYS_FILE to the public keys, "
                "or EVERGREEN_UNBLESSED=allow to serve without blessings."
            )
        if sha256 is None:
            raise NotBlessed(f"The slot's file names no blessing of version {version}; {STAGE_AGAIN}.")
        envelope = _read_envelope(directory / f"{sha256}.json", version)
        blessing = blessings.verify(envelope, trusted, self.model, version, digest)
        if blessings.compute_envelope_digest(envelope) != sha256:
            raise NotBlessed(f"The slot's file names another blessing than the one that lies there; {STAGE_AGAIN}.")
        return blessing

    def check_model(self, blessing: Blessing | None, name: str) -> None:
        """Raises `NotBlessed` when the artifact is of another model than its blessing, or than this server's."""
        allowed = blessing.model if blessing else self.model
        if allowed not in (None, name):
            raise NotBlessed(f"The artifact is of the model {name}, and allowed here is {allowed}; {STAGE_AGAIN}.")

    def check_version(self, trained: str, package: str = "scikit-learn") -> None:
        """Raises `ArtifactRejected` when a pipeline was fitted by another minor version of the library that runs it.

        scikit-learn promises nothing between two: https://scikit-learn.org/stable/model_persistence.html.
        """
        here = _find_installed(package)
        if _parse_minor(here) == _parse_minor(trained):
            return
        message = f"The model was trained with {package} {trained}, and this server has {here}"
        if self.skew == "refuse":
            raise ArtifactRejected(f"{message}; train again, or set serving.version_skew: warn.")
        log.warning("%s; it is served all the same: serving.version_skew is warn", message)


def build_admission(settings: Settings, spec: ServingSpec) -> Admission:
    """By the environment, and by the manifest's number of behaviour."""
    return Admission(
        settings.trusted_keys, settings.trusted_keys_file, settings.unblessed, settings.model, spec.version_skew
    )


def _read_envelope(path: Path, version: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_ENVELOPE).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise NotBlessed(f"The blessing {path.name} of version {version} cannot be read; {STAGE_AGAIN}.") from error


def _find_installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _parse_minor(full: str) -> list[str]:
    return full.split(".")[:2]
