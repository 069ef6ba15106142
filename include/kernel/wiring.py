"""Where the ledger lies, by the environment. Called at an edge alone, as every slice's `wiring` is."""

from pathlib import Path

from include.kernel.environment import read_setting
from include.kernel.ledger_file import LocalLedger


def open_ledger() -> LocalLedger:
    return LocalLedger(Path(read_setting("EVERGREEN_STORE")) / "ledger.jsonl")
