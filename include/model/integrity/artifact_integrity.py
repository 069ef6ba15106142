"""A directory known by the digest of its content, and the one way to copy it.

Separate from the codec because those who only carry artifacts (the serving adapters) need neither numpy nor
scikit-learn. Names and bytes count, times and modes do not: the same artifact has the same digest on every machine.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from include.kernel.errors import ArtifactRejected

MAX_BYTES = 1 << 30  # the gate's own limit for a model (gate.infra.max_size_mb) is far below


def compute_digest(directory: Path) -> str:
    """sha256, hex, over the sorted relative names and the content of every file. Raises `ArtifactRejected`."""
    return _hash_files(_read_files(directory))


def verify(directory: Path, expected: str) -> None:
    """Raises `ArtifactRejected` when the content is not what the digest says."""
    _compare(compute_digest(directory), expected, directory)


def read_contents(directory: Path) -> dict[str, bytes]:
    """Every file by its relative name, held in memory. Raises `ArtifactRejected`, also when that is too much."""
    size = sum(path.stat().st_size for path in _list_files(directory))
    if size > MAX_BYTES:
        raise ArtifactRejected(
            f"The artifact in {directory} holds {size} bytes, and {MAX_BYTES} is the most a server loads."
        )
    return dict(_read_files(directory))


def read_verified(directory: Path, expected: str) -> dict[str, bytes]:
    """The same, once its digest is the expected one: who goes on with these bytes, and never reads the directory again,
    cannot be given another file after the check. Raises `ArtifactRejected`."""
    files = read_contents(directory)
    _compare(_hash_files(files.items()), expected, directory)
    return files


def _read_files(directory: Path) -> Iterator[tuple[str, bytes]]:
    for path in _list_files(directory):
        yield path.relative_to(directory).as_posix(), _read_plain_file(path)


def _read_plain_file(path: Path) -> bytes:
    """Never through a symbolic link, also not one that was put there since the directory was listed."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ArtifactRejected(f"The artifact's {path.name} cannot be read: {error.strerror}.") from error


def _hash_files(files: Iterable[tuple[str, bytes]]) -> str:
    total = hashlib.sha256()
    for name, data in files:
        total.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode())
    return total.hexdigest()


def _compare(actual: str, expected: str, directory: Path) -> None:
    if actual != expected:
        raise ArtifactRejected(
            f"The artifact in {directory} has the digest {actual[:12]} instead of {expected[:12]}; stage it again."
        )


def copy_verified(source_dir: Path, destination_root: Path, digest: str) -> Path:
    """Copies to destination_root/<digest>, whole or not at all. What is checked is the copy, not the source."""
    destination = destination_root / digest
    if _has_digest(destination, digest):
        return destination
    destination_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=destination_root) as scratch:
        copy = Path(scratch) / "artifact"
        _copy_tree(source_dir, copy)
        verify(copy, digest)
        with _lock_directory(destination_root):
            _put_copy(copy, destination, Path(scratch) / "damaged", digest)
    return destination


def _copy_tree(source_dir: Path, copy: Path) -> None:
    if not source_dir.is_dir():
        raise ArtifactRejected(f"There is no artifact at {source_dir}; download it again.")
    shutil.copytree(source_dir, copy, symlinks=True)


def _put_copy(copy: Path, destination: Path, damaged: Path, expected: str) -> None:
    if _has_digest(destination, expected):  # somebody else put the same artifact first: fine
        return
    if destination.exists():
        destination.rename(damaged)  # the scratch directory takes it away
    copy.rename(destination)


@contextmanager
def _lock_directory(root: Path) -> Iterator[None]:
    """Without it, one of two writers could take the other's fresh copy for the damaged one."""
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _has_digest(directory: Path, expected: str) -> bool:
    try:
        return compute_digest(directory) == expected
    except (ArtifactRejected, FileNotFoundError):  # the latter: a damaged copy that is just being replaced
        return False


def _list_files(directory: Path) -> list[Path]:
    """The plain files below, by name. Raises `ArtifactRejected`: there is no directory, or a symbolic link in it."""
    if not directory.is_dir():
        raise ArtifactRejected(f"There is no artifact at {directory}; stage the release again.")
    paths = sorted(directory.rglob("*"), key=lambda path: path.relative_to(directory).as_posix())
    links = [path for path in paths if path.is_symlink()]
    if links:
        raise ArtifactRejected(f"The artifact holds a symbolic link, {links[0].name}; it must hold plain files only.")
    return [path for path in paths if path.is_file()]
