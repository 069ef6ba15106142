"""Where trainings keep what is under way, and backtests their folds, by the environment."""

from __future__ import annotations

from pathlib import Path

from include.kernel.environment import read_setting
from include.training.backtest_store import LocalBacktests


def find_studies() -> Path:
    """Where the studies of trainings that are under way keep their trials."""
    return Path(read_setting("EVERGREEN_STORE")) / "studies"


def open_backtest_store(manifest_digest: str) -> LocalBacktests:
    """The folds of one manifest."""
    return LocalBacktests(Path(read_setting("EVERGREEN_STORE")), manifest_digest)
