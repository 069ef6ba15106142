"""The figures of the code's structure, on a made-up project small enough to count by hand."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from tests.benchmarks import measure_structure
from tests.benchmarks.structure.circles import find_circles, map_imports
from tests.benchmarks.structure.names import has_verb, list_functions, read_verbs
from tests.benchmarks.structure.sizes import EXCUSES, count_lines, count_modules, read_excuses
from tests.benchmarks.structure.source import Module, read_modules
from tests.benchmarks.structure.trips import SLICES, Trip, take_trip

VERBS = read_verbs(measure_structure.VERBS)
INGEST = """
from include.adapters import store
from include.adapters.store import Store
from include.core.day import Day, read_day
from include.core.errors import Refused

def run(request):
    day = read_day(request)
    if not day:
        raise Refused(f"{day} is no day")
    kept = Store("place")
    kept.publish(day)
    kept.sweep()
    store.forget("anything")
    return _tell(request.job)

def _tell(job):
    return f"{job} is done"
"""
STORE = """
from abc import ABC, abstractmethod
from include.core.day import Day

class Base(ABC):
    def publish(self, day: Day):
        self._write(day.text())
        return self._place(day)

    @abstractmethod
    def _place(self, day: Day): ...

    def sweep(self):
        return None

class Store(Base):
    def __init__(self, place: str):
        self.place = place

    def _write(self, text):
        return text

def forget(name):
    return name
"""
DAY = """
class Day:
    def __init__(self, name):
        self.name = name

    def text(self):
        return self.name

def read_day(request):
    return Day(request.params["day"])
"""


def write_project(root: Path, files: dict[str, str]) -> dict[str, Module]:
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(textwrap.dedent(text))
    return read_modules(root)


def list_stays(trip: Trip) -> list[str]:
    return [stay.removeprefix("include/").removesuffix(".py") for stay in trip.stays]


@pytest.mark.parametrize("name", ["read_day", "_read", "is_late", "has", "must_be_due", "record"])
def test_a_name_that_opens_with_a_verb_has_one(name: str) -> None:
    assert has_verb(name, VERBS)


@pytest.mark.parametrize(
    "name",
    ["found", "_told", "to_json", "as_of", "on_body", "holds", "noting", "run_key", "_run_key", "page", "reader"],
)
def test_a_participle_a_noun_or_a_preposition_is_no_verb(name: str) -> None:
    assert not has_verb(name, VERBS)


def test_functions_are_listed_but_for_properties_dunders_and_hooks(tmp_path: Path) -> None:
    source = """
        class Protocol(asyncio.Protocol):
            def __init__(self): ...
            def data_received(self, data): ...
            @functools.cached_property
            def width(self): ...
            @field_validator("a")
            def _checked(self): ...
        def data_received():
            async def nested(): ...
    """
    found = list_functions(write_project(tmp_path, {"include/a.py": source}).values())
    assert [(each.name, each.place, each.line) for each in found] == [
        ("_checked", "include/a.py", 8),
        ("data_received", "include/a.py", 9),
        ("nested", "include/a.py", 10),
    ]


def test_a_circle_is_found_through_lazy_and_type_only_and_relative_imports(tmp_path: Path) -> None:
    modules = write_project(
        tmp_path,
        {
            "include/__init__.py": "",
            "include/a.py": "def load():\n    from include import b\n",
            "include/b.py": "if TYPE_CHECKING:\n    from .c import thing\n",
            "include/c.py": "import include.a\nimport include.d\n",
            "include/d.py": "import json\n",
            "plugins/evergreen/x.py": "from include.a import load\nfrom evergreen import x\n",
        },
    )
    graph = map_imports(modules)
    assert graph["evergreen.x"] == {"include.a"}
    assert find_circles(graph) == [["include.a", "include.b", "include.c"]]


def test_a_line_of_imports_is_no_circle() -> None:
    assert find_circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_trip_goes_where_the_request_goes(tmp_path: Path) -> None:
    """`sweep` and `forget` are not given it, `Day.text` is a third file's, `_place` is abstract, `Refused` an error."""
    modules = write_project(
        tmp_path,
        {
            "include/jobs/ingest.py": INGEST,
            "include/adapters/store.py": STORE,
            "include/core/day.py": DAY,
            "include/core/errors.py": "class Refused(Exception):\n    def __init__(self, text): ...\n",
        },
    )
    trip = take_trip(modules, "ingest")
    assert list_stays(trip) == ["jobs/ingest", "core/day", "jobs/ingest", "adapters/store", "jobs/ingest"]
    assert (trip.files, trip.folders, trip.leaf_folders, trip.folders_entered, trip.climbs) == (3, 3, 3, 4, 2)


def test_a_trip_follows_what_is_packed_passed_on_and_returned(tmp_path: Path) -> None:
    job = """
        from include.kernel.tools import Plan, drop, pair, use

        def run(request):
            first, other = pair(request, 1)
            plan = Plan(days=[first])
            plan.rows
            lost = drop(request)
            use(lost)
    """
    tools = """
        from dataclasses import dataclass

        @dataclass
        class Plan:
            days: list

            @property
            def rows(self):
                return self.days

        def pair(value, other):
            return value, other

        def drop(value):
            return None

        def use(value):
            return value
    """
    modules = write_project(tmp_path, {"include/data/jobs/ingest.py": job, "include/kernel/tools.py": tools})
    trip = take_trip(modules, "ingest")
    assert list_stays(trip) == ["data/jobs/ingest", *["kernel/tools", "data/jobs/ingest"] * 3]
    assert (trip.order, trip.folders_entered, trip.climbs) == (SLICES, 6, 3)


def test_a_file_of_include_itself_stands_above_all_slices() -> None:
    stays = ("include/retraining/a.py", "include/manifest.py", "include/retraining/a.py")
    trip = Trip(stays, SLICES)
    assert (trip.folders_entered, trip.climbs) == (2, 1)


def test_a_job_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="0 modules are the job 'ingest'"):
        take_trip(write_project(tmp_path, {"include/a.py": ""}), "ingest")


def test_sizes_are_those_of_wc_and_excuses_come_from_the_fence_alone(tmp_path: Path) -> None:
    files = {"include/__init__.py": '"""Why."""\n', "include/a/b.py": "x = 1\ny = 2\n", "plugins/c.py": ""}
    modules = write_project(tmp_path, files)
    assert count_lines(modules.values()) == 3
    assert count_modules(modules.values()) == {"include/a": 1, "plugins": 1}
    assert read_excuses(tmp_path) == {}
    write_project(tmp_path, {str(EXCUSES): "include/no.py: outside\n\n```\ninclude/a/: one idea\ninclude/b.py:\n```\n"})
    assert read_excuses(tmp_path) == {"include/a": "one idea"}


def test_the_report_says_no_for_each_bound_that_is_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = {f"include/data/jobs/{job}.py": "def run(request):\n    return request\n" for job in ("ingest", "train")}
    modules = write_project(tmp_path, jobs)
    report = measure_structure.measure(modules, {})
    assert report["ok"] and report["lines"] == 4 and report["trips"]["train"]["stays"] == 1
    assert json.loads(json.dumps(report)) == report

    long = write_project(tmp_path, {"include/data/long.py": "x = 1\n" * 501})
    assert not measure_structure.measure(long, {})["ok"]
    assert measure_structure.measure(long, {"include/data/long.py": "a table"})["ok"]
    assert "include/data/long.py: 501 lines; a table" in capsys.readouterr().out

    nouns = write_project(tmp_path, {"include/data/long.py": "def page(): ...\n"})
    report = measure_structure.measure(nouns, {})
    assert not report["ok"] and report["without_verb"] == 1
    assert measure_structure.list_names(nouns) == ["include/data/long.py:1 page"]
