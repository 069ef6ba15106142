from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from include import manifest as manifests
from include.kernel.errors import ManifestInvalid
from include.manifest import Manifest

TEXT = manifests.DEFAULT_PATH.read_text()

# what is written instead of what, and all that the sentence must name: the field, and the way out
TYPOS = [
    ("gate:", "gates:", ("gates is not a known setting", "did you mean 'gate'?", "gate is missing; add it.")),
    ("floor_auc:", "flor_auc:", ("gate.flor_auc is not a known setting", "did you mean 'floor_auc'?")),
    ("window_days: 16", "windw_days: 16", ("train.windw_days is not", "did you mean 'window_days'?")),
    ("holdout_days:", "holdout_day:", ("train.holdout_days is missing; add it.",)),
    ("min: 0, max: 60}", "min: 0, maxx: 60}", ("contract.columns.Seniority.maxx is not", "did you mean 'max'?")),
    ("memory: 2Gi", "memry: 2Gi", ("jobs.resources.default.memry is not", "did you mean 'memory'?")),
    ("{k: 2, n: 3}", "{k: 2, n: 3, m: 4}", ("monitor.persistence.m is not a known setting; remove it.",)),
    ("false_denial:", "false_deny:", ("gate.cost.false_deny is not", "did you mean 'false_denial'?")),
    ("target: local ", "target: lokal ", ("target: ", "'local' or 'kubernetes'")),
    ("psi: 0.25", "psi: high", ("monitor.psi: ", "valid number")),
    ("confidence: 0.95", "confidence: 95", ("gate.confidence: ", "less than 1")),
    ("delay_days: 3", "delay_days: -3", ("label.delay_days: ", "greater than or equal to 0")),
    ("name: credit-risk", "name: Credit Risk", ("name: ", "pattern")),
    ("first_day: 2026-08-01", "first_day: soon", ("source.first_day: ", "date")),
    ("first_day:", "first_dy:", ("source.first_dy is not a known setting; did you mean 'first_day'?",)),
    ("  days: 44", "", ("source.days is missing; add it.",)),
    ("kind: replay", "kind: replays", ("source.kind: 'replays' is not known; did you mean 'replay'?", "files, s3,")),
    ("kind: replay", "kind: files", ("source.first_day is not a known setting; remove it.",)),
    ("  kind: replay  ", "  # kind", ("source.kind is missing; add it.",)),
    ("protected: [Marital", "protectd: [Marital", ("groups.protectd is not a known", "did you mean 'protected'?")),
    ("max_gap:", "max_gaps:", ("gate.overfit.max_gaps is not a known setting", "did you mean 'max_gap'?")),
    ("fairness: {refused: warn", "fairness: {refuse: warn", ("gate.when.fairness.refuse is not", "'refused'?")),
    ("    fairness: {refused", "    champion: {refused", ("gate.when.champion", "'fairness'")),
]
# what YAML takes for something else than was meant, and what is said of it
YAML_WORDS = [
    ("  positive: bad", "  positive: no", ("label: positive is a boolean", 'positive: "no"')),
    ("values: [owner, rent", "values: [yes, rent", ("contract.columns.Home.values.0", "reads this as bool", "quotes")),
    ("values: [owner, rent", "values: [2026-08-01, rent", ("contract.columns.Home.values.0", "date 2026-08-01; put")),
    ("values: [owner, rent", "values: [12, rent", ("contract.columns.Home.values.0", "reads this as int 12")),
    ("  unique_days: 7", "  id: a\n  unique_days: 7", ("'id' stands in line", "and again in line", "keep one of them")),
]
CONTRADICTIONS = [
    ("[Home, Job]", "[Hme, Job]", ("groups names 'Hme'", "did you mean 'Home'?")),
    ("bands: {Age: [30, 45, 60]}", "bands: {}", ("groups names the number 'Age'; add its cuts", "groups.bands.Age")),
    ("[30, 45, 60]", "[30, 60, 45]", ("bands.Age must hold rising cuts",)),
    ("{k: 2, n: 3}", "{k: 4, n: 3}", ("monitor.persistence: k must not be larger than n.",)),
    (
        "holdout_days: 4",
        "holdout_days: 20",
        ("together must be smaller than window_days.",),
    ),
    ("column: Status", "column: Age", ("contract.columns must not hold the label column 'Age'.",)),
    (
        "values: [owner, rent",
        "min: 1, values: [owner, rent",
        ("contract.columns.Home: a category has values, not min",),
    ),
    ("min: 18, max: 100", "values: [young, old]", ("contract.columns.Age: a number has min and max, not values.",)),
    ("    default: {", "    other: {", ("jobs: resources needs a 'default' entry.",)),
    ("    train: {cpu", "    trian: {cpu", ("jobs: resources names 'trian', which is no job", "mean 'train'?")),
    ("    train: {cpu", "    7up: {cpu", ("jobs: resources names '7up'", "choose of ingest, train, evaluate")),
]


# the source section as a whole, and what is said of it
SOURCES = [
    ("{kind: files, path: data/day.csv}", "source: a files source needs {day} in its path, such as data/{day}.csv."),
    ("{kind: files, path: 'data/{day}.xls'}", "source: 'data/{day}.xls' must end in .csv or .parquet"),
    ("{kind: files, path: 'data/{date}.csv'}", "source: 'data/{date}.csv' is no pattern ('date')"),
    ("{kind: files, path: 'data/{day:%d}.csv'}", "source: a files source needs {day} in its path"),
    ("{kind: files, pth: 'data/{day}.csv'}", "source.pth is not a known setting; did you mean 'path'?"),
    ("{kind: s3, uri: 's3://lake/{day}.csv', attempts: 0}", "source.attempts: Input should be greater than"),
    (
        "{kind: s3, uri: '/lake/{day}.csv'}",
        "source: an s3 source needs a uri such as s3://bucket/prefix/{day}/*.parquet",
    ),
    ("{kind: s3, uri: 's3://lake/day.csv'}", "source: an s3 source needs {day} in its uri"),
    ("{kind: postgres, table: a.b.c, interval_column: at}", "source.table: String should match pattern"),
    ("{kind: postgres, table: 'a; drop', interval_column: at}", "source.table: String should match pattern"),
    ("{kind: postgres, table: a.b, interval_column: at, columns: [x, 'y\"']}", "source.columns.1: String should match"),
    ("{kind: postgres, table: a.b}", "source.interval_column is missing; add it."),
]


def shipped() -> dict[str, Any]:
    return dict(yaml.safe_load(TEXT))


def reordered(content: Any) -> Any:
    """The same document with every mapping written backwards."""
    if not isinstance(content, dict):
        return content
    return {key: reordered(content[key]) for key in reversed(content)}


def test_the_shipped_manifest_loads() -> None:
    assert manifests.load().name == "credit-risk"


@pytest.mark.parametrize(("right", "wrong", "told"), TYPOS + YAML_WORDS + CONTRADICTIONS)
def test_a_mistake_is_answered_with_a_sentence_that_names_field_and_place(
    right: str, wrong: str, told: tuple[str, ...]
) -> None:
    assert TEXT.count(right) >= 1
    with pytest.raises(ManifestInvalid) as refused:
        manifests.parse(TEXT.replace(right, wrong, 1), "pipeline.yaml")
    sentence = str(refused.value)
    assert sentence.startswith("pipeline.yaml: ")
    assert "\n" not in sentence
    assert [part for part in told if part not in sentence] == []


@pytest.mark.parametrize(("source", "told"), SOURCES)
def test_a_mistake_in_a_source_is_told_by_its_field_and_not_by_its_kind(source: str, told: str) -> None:
    content = shipped() | {"source": yaml.safe_load(source)}
    with pytest.raises(ManifestInvalid) as refused:
        manifests.parse(yaml.safe_dump(content), "pipeline.yaml")
    assert told in str(refused.value)


def test_a_setting_of_another_kind_of_source_is_no_suggestion() -> None:
    content = shipped() | {"source": {"kind": "files", "path": "data/{day}.csv", "seeds": 3}}
    with pytest.raises(ManifestInvalid, match=r"source\.seeds is not a known setting; remove it\."):
        manifests.parse(yaml.safe_dump(content))


def test_a_setting_of_another_section_is_no_suggestion() -> None:
    with pytest.raises(ManifestInvalid, match=r"serving\.persistence is not a known setting; remove it\."):
        manifests.parse(TEXT.replace("smoke_rows: 20", "smoke_rows: 20\n  persistence: 3"))


@pytest.mark.parametrize(("text", "held"), [("", "NoneType"), ("- gate", "list"), ("gate", "str")])
def test_a_document_that_is_no_mapping_is_refused(text: str, held: str) -> None:
    with pytest.raises(ManifestInvalid, match=f"must be a mapping of sections, but it holds {held}"):
        manifests.parse(text)


def test_broken_yaml_is_refused_in_one_line_that_names_the_place() -> None:
    with pytest.raises(ManifestInvalid, match=r"^m\.yaml is not valid YAML: .* line \d+.*; fix the syntax there\.$"):
        manifests.parse(TEXT.replace("seed: 7", "seed: [7"), "m.yaml")


def test_an_absent_file_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(ManifestInvalid, match=r"There is no manifest at .*nowhere\.yaml"):
        manifests.load(tmp_path / "nowhere.yaml")


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "pipeline.yaml"
    path.write_text(TEXT)
    first = manifests.load(path)
    assert manifests.load(path) is first
    path.write_text(TEXT.replace("owner: risk-ml", "owner: someone-else"))
    assert manifests.load(path).owner == "someone-else"


def test_the_digest_stays_under_comments_order_and_spelling_of_defaults() -> None:
    digest = manifests.parse(TEXT).digest
    commented = "# another word\n" + TEXT.replace("seed: 11", "seed: 11   # of the bootstrap")
    assert manifests.parse(commented).digest == digest
    assert manifests.parse(yaml.safe_dump(reordered(shipped()), sort_keys=False)).digest == digest
    spelled_out = TEXT.replace("kind: number, min: 18", "max_missing: 0.0, kind: number, min: 18")
    assert manifests.parse(spelled_out).digest == digest


@pytest.mark.parametrize(
    ("old", "new"),
    [("psi: 0.25", "psi: 0.26"), ("owner: risk-ml", "owner: x"), ("[married, single", "[single, married")],
)
def test_the_digest_changes_with_every_value(old: str, new: str) -> None:
    assert manifests.parse(TEXT.replace(old, new)).digest != manifests.parse(TEXT).digest


def test_a_manifest_cannot_be_changed() -> None:
    manifest = manifests.parse(TEXT)
    with pytest.raises(ValidationError):
        manifest.gate.floor_auc = 0.1  # type: ignore[misc]


def test_a_job_without_resources_of_its_own_gets_the_default_ones() -> None:
    jobs = manifests.parse(TEXT).jobs
    assert jobs.find_resources("train").cpu == "2"
    assert jobs.find_resources("monitor") == jobs.resources["default"]


def numbers(model: Any, place: str = "") -> list[str]:
    """Places of all numeric settings of a section that say nothing about themselves."""
    silent = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if hasattr(type(value), "model_fields"):
            silent += numbers(value, f"{place}{name}.")
        elif isinstance(value, float | int) and not field.description:
            silent.append(f"{place}{name}")
    return silent


def test_every_number_says_what_it_is_and_in_which_unit() -> None:
    explained_above = {"train.seed", "gate.seed", "monitor.persistence.k", "monitor.persistence.n"}
    explained_above |= {"gate.cost.false_approval", "gate.cost.false_denial", "contract.rows.min", "contract.rows.max"}
    manifest: Manifest = manifests.parse(TEXT)
    assert set(numbers(manifest)) <= explained_above
