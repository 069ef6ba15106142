"""What is loaded and who may ask (rows 30 to 34): tampered models, paths that lead outside, secrets, forged lines.

Two kinds of attacker. One can write where a slot reads, and changes files: the digest gives him away, and if he writes
a fitting digest into the slot's file, the missing signature does. The other got a malicious file blessed: then what the
file may hold decides, before anything in it is obeyed. His marker file must not appear.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from include.model import artifact
from include.model.blessing.blessing import compute_envelope_digest
from tests import blessed, credit
from tests.proofs.outcomes import Named, must
from tests.proofs.serving_world import CANARY, ROOT, TOKEN, Proof, Server, body, raw, row_text

Change = Callable[[Path], object]


class Gadget:
    """What pickle would run."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._marker}",)


# --- an artifact that was changed -------------------------------------------------------------------------------------


def turn_a_bit(name: str) -> Change:
    def change(place: Path) -> None:
        data = bytearray((place / name).read_bytes())
        data[len(data) // 2] ^= 1
        (place / name).write_bytes(data)

    return change


def edit_json(name: str, **fields: Any) -> Change:
    def change(place: Path) -> None:
        (place / name).write_text(json.dumps(json.loads((place / name).read_text()) | fields))

    return change


def refused_at_load(proof: Proof, server: Server, told: str) -> None:
    """Alive, not ready, and able to say why; no answer comes from what it would not load."""
    server.start()
    ready = server.http.get("/ready")
    must(ready.status_code == 503 and told in ready.text, f"answered {ready.status_code} {ready.text}")
    must(server.http.get("/health").status_code == 200, "is not alive")
    answer = server.http.post("/predict", content=body(credit.rows()[:1]))
    must(answer.status_code == 503, f"predicted: {answer.text}")
    must(not list(server.home.rglob("it-ran")), "the gadget ran")
    server.stop()


def changed_after_the_release(proof: Proof, kind: str, change: Change, told: str) -> None:
    """The blessing and the slot's file are genuine; the artifact is not. With the true one back, it serves again."""
    server = proof.new()
    place = server.place / "artifacts" / server.stage(proof.shelf(kind))
    change(place)
    refused_at_load(proof, server, told)
    shutil.rmtree(place, ignore_errors=True)
    try:
        server.serving(proof.shelf(kind))
    finally:
        server.stop()


def with_a_fitting_digest(proof: Proof, change: Change, told: str) -> None:
    """The attacker edits the slot's file too, so that the digest fits, and leaves the blessing of the true artifact."""
    server = proof.new()
    digest = server.stage(proof.shelf("compiled"))
    copy = Path(shutil.copytree(server.place / "artifacts" / digest, server.home / "edited"))
    change(copy)
    edited = artifact.compute_digest(copy)
    copy.rename(server.place / "artifacts" / edited)
    slot = json.loads((server.place / "slots" / "blue.json").read_text())
    server.write_slot(**slot | {"digest": edited})
    refused_at_load(proof, server, told)


def blessed_and_malicious(proof: Proof, kind: str, change: Callable[[Path, Path], object], told: str) -> None:
    """Everything about it is genuine, but for what is inside."""
    server = proof.new()
    server.told["PYTHONPATH"] = f"{ROOT}{os.pathsep}{ROOT / 'plugins'}{os.pathsep}{server.home}"
    copy = Path(shutil.copytree(proof.shelf(kind), server.home / "malicious"))
    change(copy, server.home / "it-ran")
    server.stage(copy)
    refused_at_load(proof, server, told)


def a_pickle(place: Path, marker: Path) -> None:
    (place / "model.skops").write_bytes(pickle.dumps(Gadget(marker)))


def a_function_in_the_schema(place: Path, marker: Path) -> None:
    command = {"__class__": "system", "__module__": "os", "__loader__": "FunctionNode", "__id__": 99}
    edit_schema(place, lambda schema: schema["content"]["content"].update(steps=command))


def a_module_of_its_own(place: Path, marker: Path) -> None:
    """It stands on the server's path, and importing it would be enough."""
    (place.parent / "evil_module.py").write_text(f"open({str(marker)!r}, 'w')\nclass Evil: pass\n")
    evil = {"__class__": "Evil", "__module__": "evil_module", "__loader__": "ObjectNode", "__id__": 98}
    edit_schema(place, lambda schema: schema["content"]["content"].update(memory=evil))


def edit_schema(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = place / "model.skops"
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files["schema.json"])
    change(schema)
    files["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def another_threshold(place: Path, marker: Path) -> None:
    """Golden rows carry what training saw; a model that does not reproduce them is another model."""
    described = json.loads((place / "artifact.json").read_text())
    described["golden"] = [golden | {"probability": 0.5} for golden in described["golden"]]
    (place / "artifact.json").write_text(json.dumps(described))


def no_blessing(proof: Proof, told: str, **changes: Any) -> None:
    server = proof.new()
    server.stage(proof.shelf("compiled"), **changes)
    refused_at_load(proof, server, told)


def another_blessing(proof: Proof, told: str, envelope: Callable[[str], str]) -> None:
    """A blessing lies there and is named, but it is not one of this release by a key of ours."""
    server = proof.new()
    digest = server.stage(proof.shelf("compiled"))
    text = envelope(digest)
    paper = compute_envelope_digest(text)
    (server.place / "blessings" / f"{paper}.json").write_text(text)
    slot = json.loads((server.place / "slots" / "blue.json").read_text())
    server.write_slot(**slot | {"blessing": paper})
    refused_at_load(proof, server, told)


# --- paths that lead outside ------------------------------------------------------------------------------------------


def a_slot_file(proof: Proof, content: Any) -> None:
    """What would become a path or a header is refused by its pattern."""
    server = proof.new()
    digest = server.stage(proof.shelf("compiled"))
    slot = json.loads((server.place / "slots" / "blue.json").read_text())
    (server.place / "slots" / "blue.json").write_text(
        content if isinstance(content, str) else json.dumps(slot | content)
    )
    must((server.place / "artifacts" / digest).is_dir(), "nothing to lead to")
    refused_at_load(proof, server, "stage the release again")


def an_artifact_elsewhere(proof: Proof, inside: bool) -> None:
    """A symbolic link for the artifact, or for a file in it: nothing is followed out of the place."""
    server = proof.new()
    place = server.place / "artifacts" / server.stage(proof.shelf("compiled"))
    target = place / "encoding.json" if inside else place
    target.rename(server.home / "elsewhere")
    target.symlink_to(server.home / "elsewhere")
    refused_at_load(proof, server, "")


PATHS = (
    "/..%2f..%2fetc%2fpasswd",
    "/../../etc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/%252e%252e%252fetc%252fpasswd",
    "/predict/../../etc/passwd",
    "/v2/models/..%2f..%2f..%2fetc%2fpasswd",
    "/v2/models/..%2f..%2fetc/infer",
    "/v2/models/%252e%252e%252f/infer",
    "/v2/models/credit/versions/..%2f..%2f1/infer",
    "/v2/models/file:%2f%2f%2fetc%2fpasswd/infer",
    "/v2/models/models:%2f..%2f/infer",
    "/v2/models/%00/infer",
    "//etc/passwd",
    "/static/..%5c..%5cetc/passwd",
    "/model?path=../../etc/passwd",
    "http://169.254.169.254/latest/meta-data/",
    "*",
)


def odd_paths(proof: Proof) -> None:
    """None names a file, a model that is not there, or another host; each gets a 4xx or what the plain path gets."""
    server, sent = proof.shared(), body(credit.rows()[:1])
    for method in ("GET", "POST"):
        for path in PATHS:
            lines = [f"{method} {path} HTTP/1.1", "host: x", "content-type: application/json"]
            asked = "\r\n".join([*lines, f"content-length: {len(sent)}"]).encode() + b"\r\n\r\n" + sent
            answer = raw(server.port, asked, seconds=5)
            status = answer[9:12].decode()
            plain = method == "GET" and path.startswith("/model?")
            must(status[:1] == "4" or (plain and status == "200"), f"{method} {path} was answered {answer[:200]!r}")
            must(b"root:" not in answer, f"{method} {path} reads files")
    must("Traceback" not in server.log(), f"left a traceback: {server.log()[-500:]}")


# --- who may ask, and what is told ------------------------------------------------------------------------------------


def bound_to_loopback(proof: Proof) -> None:
    server = proof.shared()
    assert server.process is not None
    listening = [
        each.laddr.ip for each in psutil.Process(server.process.pid).net_connections() if each.status == "LISTEN"
    ]
    must(listening == ["127.0.0.1"], f"listens on {listening}")


FORGED = f"r1\\r\\nx-evil: {CANARY}", f"r1\\n2026-01-01 00:00:00 ERROR {CANARY}", f"<script>{CANARY}</script>", "=1+1"


def forged_ids(proof: Proof) -> None:
    """A request id is cut down to what can forge neither a header nor a line of the log."""
    server = proof.shared()
    for sent in (*FORGED, "x" * 5000, "\x1b[31mred"):
        answer = server.http.post("/predict", content=body(credit.rows()[:1]), headers={"x-request-id": sent})
        must(answer.status_code in (200, 400), f"answered {answer.status_code}")  # an escape is no HTTP header at all
        back = answer.headers.get("x-request-id", "none")
        must(re.fullmatch(r"[A-Za-z0-9._-]{1,64}", back) is not None, f"sent back {back!r}")
        must("x-evil" not in answer.headers, "a header was forged")


def markup_in_cells(proof: Proof) -> None:
    """A formula, HTML and a line break in a category: a prediction as for any unseen value, and repeated nowhere."""
    server = proof.shared()
    for cell in (
        f"=HYPERLINK('{CANARY}')",
        f"<script>{CANARY}</script>",
        f"\n2026-01-01 ERROR {CANARY}",
        f"${{jndi:{CANARY}}}",
    ):
        answer = server.http.post("/predict", content=f'{{"row": {row_text(Home=json.dumps(cell))}}}'.encode())
        must(answer.status_code == 200 and CANARY not in answer.text, f"answered {answer.text}")
    must(CANARY not in server.http.get("/metrics").text, "a cell became a label of a metric")


def nothing_leaked(proof: Proof) -> None:
    """After all cases: no token and no sent value in any log, and no token in the list of processes."""
    proof.shared()
    logs = {server.log_file: server.log() for server in proof.servers}
    must(len(logs) > 0 and any(logs.values()), "there is no log to look at")
    told = [str(path) for path, text in logs.items() if CANARY in text or TOKEN in text]
    must(not told, f"told in {told}")
    shown = [
        process.info["name"]
        for process in psutil.process_iter(["name", "cmdline"])
        if TOKEN in str(process.info["cmdline"])
    ]
    must(not shown, f"the token stands in the command line of {shown}")
    proof.figures["logs_searched"] = len(logs)


def of_malice(proof: Proof) -> list[Named]:
    malicious = partial(partial, blessed_and_malicious, proof)
    known = "it is not loaded, /ready says why"
    return [
        (
            f"30 blessed, but a pickle that runs a command: {known}, nothing runs",
            malicious("generic", a_pickle, "skops"),
        ),
        (
            f"30 blessed, but skops' schema names a function: {known}, nothing runs",
            malicious("generic", a_function_in_the_schema, "os.system, which is not allowed"),
        ),
        (
            f"30 blessed, but skops' schema names a module of its own: {known}, nothing runs",
            malicious("generic", a_module_of_its_own, "evil_module.Evil"),
        ),
        (
            f"30 blessed, but it misses its golden rows: {known}",
            malicious("compiled", another_threshold, "golden rows"),
        ),
    ]


def of_trust(proof: Proof) -> list[Named]:
    changed = partial(partial, changed_after_the_release, proof)
    digest, known = "has the digest", "it is not loaded, /ready says why"
    return [
        (f"30 a bit of the compiled model turned: {known}", changed("compiled", turn_a_bit("model.treelite"), digest)),
        (f"30 a bit of the generic model turned: {known}", changed("generic", turn_a_bit("model.skops"), digest)),
        (f"30 the encoding edited: {known}", changed("compiled", edit_json("encoding.json", x=1), digest)),
        (f"30 the threshold edited: {known}", changed("compiled", edit_json("artifact.json", threshold=0.9), digest)),
        (f"30 a file added: {known}", changed("compiled", lambda place: (place / "more").write_text("x"), digest)),
        (f"30 a file gone: {known}", changed("compiled", lambda place: (place / "encoding.json").unlink(), digest)),
        (f"30 the artifact gone: {known}", changed("compiled", shutil.rmtree, "")),
        *of_malice(proof),
        ("31 a slot file whose digest is a path: refused", partial(a_slot_file, proof, {"digest": "../../etc"})),
        ("31 a slot file whose version is a path: refused", partial(a_slot_file, proof, {"version": "../1"})),
        ("31 a slot file whose version is a header: refused", partial(a_slot_file, proof, {"version": "1\r\nx: y"})),
        ("31 a slot file that is no JSON: refused", partial(a_slot_file, proof, "{")),
        ("31 a slot file 100,000 deep: refused", partial(a_slot_file, proof, "[" * 100_000)),
        ("31 a file of the artifact is a symbolic link: not followed", partial(an_artifact_elsewhere, proof, True)),
        ("31 traversal in paths, raw, encoded, twice encoded: 4xx, no file read", partial(odd_paths, proof)),
        ("32 the server listens on loopback alone", partial(bound_to_loopback, proof)),
        ("34 forged request ids: cut down to what forges nothing", partial(forged_ids, proof)),
        (
            "34 formula, HTML, line break in a cell: a plain prediction, repeated nowhere",
            partial(markup_in_cells, proof),
        ),
    ]


def of_blessings(proof: Proof) -> list[Named]:
    def signed(key: Any = blessed.KEY, **changes: Any) -> Callable[[str], str]:
        return lambda digest: blessed.envelope(
            blessed.document(**{"model": "credit", "version": "1", "digest": digest, **changes}), key
        )

    other = partial(partial, another_blessing, proof)
    return [
        (
            "30 no blessing: not loaded, /ready says why",
            partial(no_blessing, proof, "names no blessing", blessing=None),
        ),
        ("30 a blessing nobody finds: not loaded", partial(no_blessing, proof, "cannot be read", blessing="0" * 64)),
        ("30 blessed by an unknown key: not loaded", other("key", signed(blessed.OTHER_KEY))),
        ("30 the blessing of another version: not loaded", other("version", signed(version="2"))),
        ("30 the blessing of another artifact: not loaded", other("artifact", signed(digest="8" * 64))),
        (
            "30 the blessing of a historical training: not loaded",
            other("historical training", signed(intent="historical")),
        ),
        (
            "30 the artifact edited and the slot's digest too: the blessing gives it away",
            partial(with_a_fitting_digest, proof, edit_json("artifact.json", threshold=0.9), "blessing"),
        ),
        ("31 the artifact is a symbolic link: not followed", partial(an_artifact_elsewhere, proof, False)),
    ]
