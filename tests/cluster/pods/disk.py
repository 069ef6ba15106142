"""Runs in a pod that mounts the disks of the proof, so that a machine outside of the cluster can write and read them.

In production Airflow mounts the same disks. It knows nothing but the standard library, since it runs in the image of
the model server. ROOMS are the directories that may be touched; a path begins with the last part of one of them.

    PUT /serving/artifacts   a tar archive, unpacked there    GET /store/results   the same as an archive
    DELETE /serving          empties the directories below it
"""

import io
import os
import shutil
import sys
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOMS = [Path(room) for room in os.environ["ROOMS"].split(":")]
KEPT = ("artifacts", "blessings")  # mounted by the slots by name, so they are emptied and never removed


def place(path: str) -> Path:
    first, _, rest = path.strip("/").partition("/")
    room = next(room for room in ROOMS if room.name == first)
    found = (room / rest).resolve()
    if not found.is_relative_to(room.resolve()):
        raise StopIteration(path)
    return found


def empty(room: Path) -> None:
    for each in [*room.iterdir()]:
        if each.name in KEPT:
            empty(each)
        elif each.is_dir():
            shutil.rmtree(each, ignore_errors=True)
        else:
            each.unlink(missing_ok=True)


def archive(room: Path) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as packed:
        if room.exists():
            packed.add(room, arcname=".")
    return made.getvalue()


class Disk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PUT(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        target = place(self.path)
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(sent)) as packed:
            packed.extractall(target)
        self._answer(200)

    def do_GET(self) -> None:
        self._answer(200, archive(place(self.path)))

    def do_DELETE(self) -> None:
        empty(place(self.path))
        self._answer(200)


if __name__ == "__main__":
    for room in ROOMS:
        for name in KEPT if room.name == "serving" else ():
            (room / name).mkdir(exist_ok=True)
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Disk).serve_forever()
    sys.exit(1)
