"""What the cases of `make prove-data` share: a good day to start from, and what holds after every refusal."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.proofs.bad_input import FORBIDDEN
from tests.proofs.delivery import DAY, Ended, Pipeline, rows_of
from tests.proofs.outcomes import Outcomes, must

BEFORE, NEXT = DAY - timedelta(days=1), DAY + timedelta(days=1)


@dataclass
class Proof(Outcomes):
    """The world all cases share, and their outcomes."""

    home: Path = field(kw_only=True)
    good_id: str = ""
    good_names: set[str] = field(default_factory=set)
    bucket_names: set[str] = field(default_factory=set)
    seconds: float = 0.0
    _made: int = 0

    def prepare(self) -> None:
        """The store every case starts from, and what one undisturbed good day is called and leaves."""
        template = Pipeline(self.home / "template")
        template.deliver(rows_of(BEFORE), BEFORE)
        must(template.ingest(BEFORE).exit == 0, "the day before could not be published")
        undisturbed = self.pipeline()
        undisturbed.deliver(rows_of())
        began = time.monotonic()
        ended = undisturbed.ingest()
        self.seconds = time.monotonic() - began
        must(ended.exit == 0, ended.log)
        self.good_id, self.good_names = ended.outputs["id"], set(undisturbed.published())

    def new_home(self) -> Path:
        with self._lock:
            self._made += 1
            return self.home / f"case-{self._made:03d}"

    def pipeline(self, suffix: str = "csv", **more: Any) -> Pipeline:
        home = self.new_home()
        if (self.home / "template" / "store").exists():
            shutil.copytree(self.home / "template" / "store", home / "store")
        return Pipeline(home, suffix, **more)

    def refused(
        self, pipeline: Pipeline, ended: Ended, before: dict[str, str], exit: int, kind: str, *told: str
    ) -> None:
        """What holds after every refusal."""
        must((ended.exit, ended.kind) == (exit, kind), f"ended with {ended.exit} {ended.kind}: {ended.log[-600:]}")
        must(not [part for part in told if part not in ended.told], f"says only: {ended.told}")
        must("\n" not in ended.told, f"says more than one line: {ended.told!r}")
        must(not [mark for mark in FORBIDDEN if mark in ended.told + ended.log], f"lets markup through: {ended.log!r}")
        must(ended.verdict == "", "left a verdict an event could be made of")
        must(pipeline.published() == before, f"changed the store: {set(pipeline.published()) ^ set(before)}")
        must(pipeline.leftovers() == [], f"left {pipeline.leftovers()}")

    def recovers(self, pipeline: Pipeline) -> None:
        """The next good run, whatever was before it."""
        ended = pipeline.ingest()
        must(ended.exit == 0, f"the next good run ended with {ended.exit}: {ended.log[-600:]}")
        must(ended.outputs["id"] == self.good_id, f"the next good run published {ended.outputs['id'][:12]}")
        must([s.id for s in pipeline.snapshots() if s.day == DAY][-1:] == [self.good_id], "its snapshot does not count")
        must(pipeline.leftovers() == [], f"the next good run left {pipeline.leftovers()}")

    def recovers_with_good_rows(self, pipeline: Pipeline) -> None:
        pipeline.deliver(rows_of())
        self.recovers(pipeline)
