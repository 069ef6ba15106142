"""What the code costs its reader, in numbers: `python -m tests.benchmarks.measure_structure [CHECKOUT] [--names]`.

Measured is this checkout or another one, which is read and never imported: lines of include and plugins, modules a
folder, lines a module, functions that do not begin with a verb, circles of imports, and the trips a reader makes who
follows a request through a job. What exactly is counted stands in the modules of tests.benchmarks.structure. `--names`
lists every function without a leading verb instead. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.structure.circles import find_circles, map_imports
from tests.benchmarks.structure.names import has_verb, list_functions, read_verbs
from tests.benchmarks.structure.sizes import count_lines, count_modules, read_excuses
from tests.benchmarks.structure.source import Module, read_modules
from tests.benchmarks.structure.trips import take_trip

ROOT = Path(__file__).resolve().parents[2]
VERBS = Path(__file__).with_name("verbs.txt")
JOBS = ("ingest", "train")
LINES = 33_272  # before the code was parted by capability
FOLDER_MODULES = 12
MODULE_LINES = 500
WITHOUT_VERB = 0.10
FOLDERS_ENTERED = 7
CLIMBS = 4


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--names", action="store_true", help="list every function without a leading verb")
    arguments = parser.parse_args()
    modules = read_modules(arguments.checkout)
    if not modules:
        parser.error(f"{arguments.checkout} holds no Python under include and plugins")
    if arguments.names:
        print(*list_names(modules), sep="\n")
        return 0
    report = measure(modules, read_excuses(arguments.checkout))
    print(json.dumps(report))
    return 0 if report["ok"] else 1


def list_names(modules: dict[str, Module]) -> list[str]:
    verbs = read_verbs(VERBS)
    functions = list_functions(modules.values())
    return [f"{each.place}:{each.line} {each.name}" for each in functions if not has_verb(each.name, verbs)]


def measure(modules: dict[str, Module], excuses: dict[str, str]) -> dict[str, Any]:
    """Prints each figure when it is known."""
    parts = [measure_sizes(modules, excuses), measure_names(modules), measure_circles(modules), measure_trips(modules)]
    report = {name: value for part in parts for name, value in part.items() if name != "ok"}
    return {"ok": all(part["ok"] for part in parts), **report}


def measure_sizes(modules: dict[str, Module], excuses: dict[str, str]) -> dict[str, Any]:
    lines, folders = count_lines(modules.values()), count_modules(modules.values())
    large = {folder: count for folder, count in folders.most_common() if count > FOLDER_MODULES}
    long = {str(module.path): module.lines for module in modules.values() if module.lines > MODULE_LINES}
    print(f"lines              {lines} in {len(modules)} files (at most {LINES})")
    print(f"modules a folder   at most {max(folders.values())} (bound {FOLDER_MODULES})")
    show({folder: f"{count} modules" for folder, count in large.items()}, excuses)
    print(f"lines a module     at most {max(module.lines for module in modules.values())} (bound {MODULE_LINES})")
    show({path: f"{count} lines" for path, count in long.items()}, excuses)
    return {
        "ok": lines <= LINES and not (large.keys() | long.keys()) - excuses.keys(),
        "lines": lines,
        "folder_modules": max(folders.values()),
        "large_folders": len(large),
        "long_modules": len(long),
        "excused": len((large.keys() | long.keys()) & excuses.keys()),
    }


def show(found: dict[str, str], excuses: dict[str, str]) -> None:
    for place, count in found.items():
        print(f"  {place}: {count}" + (f"; {excuses[place]}" if place in excuses else ""))


def measure_names(modules: dict[str, Module]) -> dict[str, Any]:
    functions, unnamed = len(list_functions(modules.values())), len(list_names(modules))
    share = unnamed / max(functions, 1)
    print(f"without a verb     {unnamed} of {functions} functions, {share:.1%} (<= {WITHOUT_VERB:.0%})", flush=True)
    return {"ok": share <= WITHOUT_VERB, "functions": functions, "without_verb": unnamed, "share": round(share, 4)}


def measure_circles(modules: dict[str, Module]) -> dict[str, Any]:
    circles = find_circles(map_imports(modules))
    print(f"circles            {len(circles)} of imports (0)", flush=True)
    for circle in circles:
        print(f"  {', '.join(circle)}")
    return {"ok": not circles, "circles": len(circles)}


def measure_trips(modules: dict[str, Module]) -> dict[str, Any]:
    trips: dict[str, dict[str, int]] = {}
    for job in JOBS:
        trip = take_trip(modules, job)
        trips[job] = {
            "stays": len(trip.stays),
            "files": trip.files,
            "folders": trip.folders,
            "leaf_folders": trip.leaf_folders,
            "folders_entered": trip.folders_entered,
            "climbs": trip.climbs,
        }
        print(f"trip of {job:<10} {', '.join(f'{name} {count}' for name, count in trips[job].items())}", flush=True)
    ok = all(trip["folders_entered"] <= FOLDERS_ENTERED and trip["climbs"] <= CLIMBS for trip in trips.values())
    print(f"  folders_entered at most {FOLDERS_ENTERED}, climbs at most {CLIMBS}")
    return {"ok": ok, "trips": trips}


if __name__ == "__main__":
    sys.exit(main())
