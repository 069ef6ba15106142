"""A directory known by the digest of its content, and the one way to copy it.

Separate from the codec because those who only carry artifacts (the serving adapters) need neither numpy nor
scikit-learn. Names and bytes count, times and modes do not: the same artifact has the same digest on every machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from include.core.errors import ArtifactRejected


def digest(directory: Path) -> str:
    """sha256, hex, over the sorted relative names and the content of every file. Raises `ArtifactRejected`."""
    if not directory.is_dir():
        raise ArtifactRejected(f"There is no artifact at {directory}; stage the release again.")
    total = hashlib.sha256()
    for path in _files(directory):
        name = path.relative_to(directory).as_posix()
        total.update(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n".encode())
    return total.hexdigest()


def verify(directory: Path, expected: str) -> None:
    """Raises `ArtifactRejected` when the content is not what the digest says."""
    found = digest(directory)
    if found != expected:
        raise ArtifactRejected(
            f"The artifact in {directory} has the digest {found[:12]} instead of {expected[:12]}; stage it again."
        )


def copy_verified(source_dir: Path, destination_root: Path, digest: str) -> Path:
    """Copies to destination_root/<digest>, whole or not at all. What is checked is the copy, not the source."""
    destination = destination_root / digest
    if _holds(destination, digest):
        return destination
    destination_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=destination_root) as scratch:
        copy = Path(scratch) / "artifact"
        _copied(source_dir, copy)
        verify(copy, digest)
        with _alone_in(destination_root):
            _put(copy, destination, Path(scratch) / "damaged", digest)
    return destination


def _copied(source_dir: Path, copy: Path) -> None:
    if not source_dir.is_dir():
        raise ArtifactRejected(f"There is no artifact at {source_dir}; download it again.")
    shutil.copytree(source_dir, copy, symlinks=True)


def _put(copy: Path, destination: Path, damaged: Path, expected: str) -> None:
    if _holds(destination, expected):  # somebody else put the same artifact first: fine
        return
    if destination.exists():
        destination.rename(damaged)  # the scratch directory takes it away
    copy.rename(destination)


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Without it, one of two writers could take the other's fresh copy for the damaged one."""
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _holds(directory: Path, expected: str) -> bool:
    try:
        return digest(directory) == expected
    except (ArtifactRejected, FileNotFoundError):  # the latter: a damaged copy that is just being replaced
        return False


def _files(directory: Path) -> list[Path]:
    paths = sorted(directory.rglob("*"), key=lambda path: path.relative_to(directory).as_posix())
    links = [path for path in paths if path.is_symlink()]
    if links:
        raise ArtifactRejected(f"The artifact holds a symbolic link, {links[0].name}; it must hold plain files only.")
    return [path for path in paths if path.is_file()]
