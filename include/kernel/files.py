"""What every local adapter needs of a disk: whole writes, one writer at a time, room to work in, a clear refusal."""

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from include.kernel.errors import StorageUnavailable

DRAFT_PATTERN = ".*.????????"  # what mkstemp makes of a file's name
DRAFT_MAX_AGE_S = 60.0
WRITE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@contextmanager
def translate_write_errors(path: Path) -> Iterator[None]:
    """Turns the operating system's refusal to write into `StorageUnavailable`, by the name of `place`."""
    try:
        yield
    except OSError as error:
        if error.errno not in WRITE_ERRNOS:
            raise
        why = os.strerror(error.errno)
        raise StorageUnavailable(f"{path} cannot be written ({why}); make room there, then retry.") from error


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replaces `path` by a rename, so a reader (or a kill) sees the old text or the new one, nothing between.

    Raises `StorageUnavailable`; the old text stays then.
    """
    with translate_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, content)


def _replace(path: Path, content: str | bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sweep_drafts(root: Path) -> None:
    """Removes what writers that were killed left of `write_atomic` under `root`.

    A draft lives for milliseconds. One that is a minute old has no owner, or one that was held up: its rename will then
    fail, and whoever runs it again writes the file anew.
    """
    for draft in root.rglob(DRAFT_PATTERN):
        with suppress(FileNotFoundError):
            if draft.is_file() and time.time() - draft.stat().st_mtime > DRAFT_MAX_AGE_S:
                draft.unlink()


@contextmanager
def hold_lock(path: Path, timeout_s: float | None = None) -> Iterator[None]:
    """Holds an exclusive lock on `path` (flock: the kernel drops it when the holder dies).

    A holder that was stopped keeps it. With `timeout_s`, raises `StorageUnavailable` after so many seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        if timeout_s is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            _lock_within(timeout_s, path, file.fileno())
        yield


def _lock_within(timeout_s: float, path: Path, handle: int) -> None:
    attempts = Retrying(
        stop=stop_after_delay(timeout_s), wait=wait_fixed(0.01), retry=retry_if_exception_type(BlockingIOError)
    )
    try:
        attempts(fcntl.flock, handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except RetryError as error:
        raise StorageUnavailable(
            f"{path} is held by another process for more than {timeout_s:g} s; `fuser {path}` tells which: end it, "
            "then retry."
        ) from error


def link_or_copy(path: Path, name: Path) -> Path:
    """The file under a further name, which is its own: a link where there can be one, else a copy."""
    try:
        os.link(path, name)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, name)
    return name


@contextmanager
def open_scratch_directory(parent: Path) -> Iterator[Path]:
    """A directory of one's own under `parent`, gone afterwards; those of dead owners are swept first.

    An owner holds a lock on its directory, and the kernel drops a lock when its holder dies, however it dies. So
    whoever gets the lock of a directory knows that nobody works in it: no age to guess, no process id to mistake.
    """
    with translate_write_errors(parent), hold_lock(parent / ".lock"):
        _sweep_scratch(parent)
        place = Path(tempfile.mkdtemp(prefix="work-", dir=parent))
        owned = os.open(place, os.O_RDONLY)
        fcntl.flock(owned, fcntl.LOCK_EX)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        os.close(owned)


def _sweep_scratch(parent: Path) -> None:
    for place in parent.glob("work-*"):
        with suppress(FileNotFoundError, BlockingIOError):  # its owner has just tidied up, or is at work
            handle = os.open(place, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(place, ignore_errors=True)
            finally:
                os.close(handle)
