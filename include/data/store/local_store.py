"""A directory as the place of the snapshot store.

A file that lies on the store's own disk gets a second name and no second copy: a hard link appears whole or not at
all, and refuses to replace anything. From another disk it is copied first, into a room that is swept when its owner
dies.
"""

import errno
import hashlib
import os
import shutil
from contextlib import suppress
from pathlib import Path

from include.data.store.snapshot_store import ObjectStore, SnapshotStore, StoredObject
from include.kernel.files import hold_lock, open_scratch_directory, translate_write_errors, write_atomic


class LocalObjectStore(ObjectStore):
    def __init__(self, root: Path) -> None:
        self._root = root
        self.uri = str(root)

    def read(self, key: str) -> StoredObject | None:
        try:
            data = (self._root / key).read_bytes()
        except FileNotFoundError:
            return None
        return StoredObject(data, hashlib.sha256(data).hexdigest())

    def write(self, key: str, data: bytes, tag: str | None) -> bool:
        path = self._root / key
        with translate_write_errors(path), hold_lock(self._root / ".lock"):
            found = self.read(key)
            if (found.tag if found else None) != tag:
                return False
            _replace(path, data)
        return True

    def keep(self, key: str, file: Path) -> None:
        path = self._root / key
        if path.exists():
            return
        with translate_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                _link(file, path)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                    raise
                self._copy(file, path)

    def _copy(self, file: Path, path: Path) -> None:
        with open_scratch_directory(self._root / "scratch") as workspace:
            _link(Path(shutil.copyfile(file, workspace / path.name)), path)

    def fetch(self, key: str, md5: str) -> Path | None:
        path = self._root / key
        return path if path.exists() else None

    def add(self, key: str, data: bytes) -> None:
        """The draft's name is the key's own: who repeats what a kill interrupted, takes it up and leaves none."""
        path = self._root / key
        if path.exists():
            return
        with translate_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{path.name}")
            with open(draft, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)

    def fetch_into(self, key: str, workspace: Path) -> Path | None:
        return self.fetch(key, "")

    def remove(self, key: str) -> None:
        with translate_write_errors(self._root / key):
            (self._root / key).unlink(missing_ok=True)

    def list_keys(self, prefix: str) -> list[str]:
        files = (path for path in (self._root / prefix).rglob("[!.]*") if path.is_file())
        return sorted(str(path.relative_to(self._root)) for path in files)


def _link(file: Path, path: Path) -> None:
    """Gives a file, once its bytes are on the disk, its immutable name."""
    with open(file, "rb") as bytes_of:
        os.fsync(bytes_of.fileno())
    file.chmod(0o444)
    with suppress(FileExistsError):  # another publisher of the same bytes was first
        os.link(file, path)


def _replace(path: Path, data: bytes) -> None:
    """Under the root's lock, so whatever draft lies here is that of a writer who died."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for draft in path.parent.glob(f".{path.name}.*"):
        draft.unlink()
    write_atomic(path, data)


class LocalSnapshotStore(SnapshotStore):
    def __init__(self, root: Path) -> None:
        super().__init__(LocalObjectStore(root))
