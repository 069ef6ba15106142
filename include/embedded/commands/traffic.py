"""Steady live traffic: real rows through the proxy at a fixed rate, every answer counted by status and version."""

import csv
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from include.manifest import Manifest
from include.serving.words import headers

CLIENT_COUNT = 2  # keep-alive connections; one could hide what a switch does to the other


class Traffic:
    """Started once, stopped once. `versions` counts the answers of each version, `failures` what was no 200."""

    def __init__(self, url: str, rows: list[dict[str, object]], per_second: float) -> None:
        self._url = f"{url}/predict"
        self._rows = rows
        self._pause = CLIENT_COUNT / per_second
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CLIENT_COUNT)]
        self.versions: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.versions.total() + self.failures.total()

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def _run(self, number: int) -> None:
        rows = itertools.islice(itertools.cycle(self._rows), number, None, CLIENT_COUNT)
        with httpx.Client(timeout=10) as client:
            for row, _ in zip(rows, self._iterate_ticks(), strict=False):
                self._ask(client, row)

    def _iterate_ticks(self) -> Iterator[None]:
        """One beat a pause, kept to the clock: a slow answer is followed by a short wait, not by a slower rate."""
        due = time.monotonic()
        while not self._stop.is_set():
            yield
            due = max(due + self._pause, time.monotonic() - 1)
            self._stop.wait(max(due - time.monotonic(), 0))

    def _ask(self, client: httpx.Client, row: Mapping[str, object]) -> None:
        try:
            answer = client.post(self._url, json={"row": row})
        except httpx.HTTPError as error:
            self.failures[type(error).__name__] += 1
            return
        if answer.status_code == httpx.codes.OK:
            self.versions[answer.headers[headers.VERSION]] += 1
        else:
            self.failures[str(answer.status_code)] += 1


def read_rows(path: Path, manifest: Manifest) -> list[dict[str, object]]:
    """The rows of a CSV as a client would send them: the contract's columns, empty fields as null."""
    with path.open(newline="") as file:
        return [_convert_row(row, manifest) for row in csv.DictReader(file)]


def _convert_row(row: Mapping[str, str], manifest: Manifest) -> dict[str, object]:
    return {name: _convert_value(row[name], spec.kind) for name, spec in manifest.contract.columns.items()}


def _convert_value(text: str, kind: str) -> object:
    if text == "":
        return None
    return float(text) if kind == "number" else text
