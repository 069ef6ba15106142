"""Backtest folds in the store's directory, one file a fold, and the page that compares them.

    <root>/backtests/<manifest>/<as_of>.json        a fold; <manifest> is the first 12 digits of the manifest's hash
    <root>/backtests/<manifest>/index.html          all folds of this manifest

Folds of two manifests are two backtests and never share a page. The page is drawn under a lock from whatever folds lie
there then, so however many runs end at once, the last one to draw has them all.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from pydantic import ValidationError

from include.kernel.errors import DataRefused
from include.kernel.files import hold_lock, write_atomic
from include.training.core.backtest import Fold


class LocalBacktests:
    def __init__(self, root: Path, manifest: str) -> None:
        self._directory = root / "backtests" / manifest[:12]

    @contextmanager
    def lock_training(self, key: str) -> Iterator[None]:
        """Two folds may want the same training: the second waits, and finds it done."""
        with hold_lock(self._directory / f".{key}.lock"):
            yield

    def write(self, fold: Fold, draw: Callable[[Sequence[Fold]], str]) -> bool:
        """Keeps the fold and draws the page anew. False when the very same fold lay there already."""
        path, text = self._locate_fold(fold.as_of), fold.model_dump_json(indent=1)
        with hold_lock(self._directory / ".page.lock"):
            changed = not path.exists() or path.read_text() != text
            if changed:
                write_atomic(path, text)
            write_atomic(self.page, draw(self.read_folds()))
        return changed

    def read_folds(self) -> list[Fold]:
        """Oldest first."""
        return [_read_fold(path) for path in sorted(self._directory.glob("*.json"))]

    @property
    def page(self) -> Path:
        return self._directory / "index.html"

    def _locate_fold(self, as_of: date) -> Path:
        return self._directory / f"{as_of}.json"


def _read_fold(path: Path) -> Fold:
    try:
        return Fold.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DataRefused(
            f"{path} is no fold that this code can read; remove it and backfill that week again."
        ) from error
