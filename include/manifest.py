"""The manifest: one typed, frozen document that holds every threshold of the pipeline.

DAG files read it at parse time, so it needs nothing but pydantic and yaml. Every model below forbids unknown fields: a
typo is an error with a suggestion, never a silently ignored setting. The manifest's hash goes onto every model,
blessing and release, so that a decision can always be traced to the numbers it was taken by.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from datetime import date
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError, model_validator

from include.data import row_rules
from include.kernel.errors import ManifestInvalid
from include.release.spec import ReleaseManifest
from include.retraining.spec import RetrainingManifest
from include.serving.explain import reason_codes

DEFAULT_PATH = Path(__file__).resolve().parent / "pipeline.yaml"


class Manifest(RetrainingManifest, ReleaseManifest):
    """All sections, and what they ask of each other."""

    @model_validator(mode="after")
    def _check_experiment_polling(self) -> Manifest:
        if self.experiment and self.experiment.look_s >= self.release.abandoned_s:
            raise ValueError(
                "experiment.look_s must be smaller than release.abandoned_s, or nobody would be taken to follow it"
            )
        return self

    @model_validator(mode="after")
    def _check_route_support(self) -> Manifest:
        if self.target != "kubernetes":
            return self
        if not self.cluster.can_split and (self.release.strategy == "canary" or self.release.has_shadow):
            raise ValueError(
                "release asks for shares or copies of the requests, which the Service of target kubernetes cannot "
                "give; install the Gateway API and set cluster.gateway, or Istio and cluster.virtual_service, or set "
                "release.strategy: blue_green and release.shadow.enabled: false"
            )
        if self.experiment:
            raise ValueError(
                "experiment deals callers by their key, which no route of target kubernetes does; remove it, "
                "or set target: local"
            )
        if self.release.has_shadow and self.cluster.replicas > 1:
            raise ValueError(
                "release.shadow compares the answers of one process with those of one other; set cluster.replicas: 1, "
                "or release.shadow.enabled: false"
            )
        return self

    @model_validator(mode="after")
    def _check_label_column(self) -> Manifest:
        if self.contract.id in self.contract.columns:
            raise ValueError(f"contract.columns must not hold the id column {self.contract.id!r}")
        if self.label.positive == self.label.negative:
            raise ValueError("label.positive and label.negative must differ")
        if self.label.column in self.contract.columns:
            raise ValueError(f"contract.columns must not hold the label column {self.label.column!r}")
        return self

    @model_validator(mode="after")
    def _check_group_columns(self) -> Manifest:
        for name in self.groups.columns:
            if name not in self.contract.columns:
                near = difflib.get_close_matches(name, self.contract.columns, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"groups names {name!r}, which contract.columns does not have{hint}")
            if self.contract.columns[name].kind == "number" and name not in self.groups.bands:
                raise ValueError(
                    f"groups names the number {name!r}; add its cuts, such as groups.bands.{name}: [30, 45]"
                )
        return self

    @model_validator(mode="after")
    def _check_log_columns(self) -> Manifest:
        """A typo here would write what should be hidden."""
        known = [*self.contract.columns, self.contract.id]
        for field, names in (("drop", self.serving.log.drop), ("hash", self.serving.log.hash)):
            for name in (name for name in names if name not in known):
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"serving.log.{field} names {name!r}, which is no input and not the id{hint}")
        return self

    @model_validator(mode="after")
    def _check_reason_codes(self) -> Manifest:
        for name in self.serving.reasons:
            if name not in self.contract.columns:
                raise ValueError(f"serving.reasons names {name!r}, which contract.columns does not have")
        codes: dict[str, str] = {}
        for name in self.contract.columns:
            own = self.serving.reasons.get(name)
            code = own.code if own and own.code else reason_codes.derive_code(name)
            if code in codes:
                raise ValueError(
                    f"serving.reasons gives {codes[code]!r} and {name!r} the code {code!r}; set serving.reasons."
                    f"{name}.code to another one"
                )
            codes[code] = name
        return self

    @model_validator(mode="after")
    def _check_row_rules(self) -> Manifest:
        for taken in {self.contract.id, self.label.column} & {*self.contract.declared}:
            raise ValueError(f"contract.extras and contract.event_time must not name the id or label column {taken!r}")
        kinds = {name: str(spec.kind) for name, spec in self.contract.declared.items()}
        kinds |= {self.contract.id: "category", self.label.column: self.label.kind}
        for rule in self.contract.checks:
            try:
                row_rules.check_kinds(row_rules.parse(rule.check), kinds)
            except ValueError as error:
                raise ValueError(f"contract.checks: {error}, as in {rule.check!r}") from error
        return self


def parse(text: str, place: str = "the manifest") -> Manifest:
    """Raises `ManifestInvalid`: one sentence that names the field, the place and the nearest known field."""
    try:
        content = yaml.load(text, UniqueKeyLoader)
    except DuplicateKey as error:
        raise ManifestInvalid(f"{place}: {error}.") from error
    except yaml.YAMLError as error:
        raise ManifestInvalid(f"{place} is not valid YAML: {_join_lines(error)}; fix the syntax there.") from error
    if not isinstance(content, dict):
        raise ManifestInvalid(f"{place} must be a mapping of sections, but it holds {type(content).__name__}.")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise ManifestInvalid(f"{place}: {_explain(error)}") from error


class DuplicateKey(yaml.YAMLError):
    pass


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which would let the last of two equal keys win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and name in lines:
                raise DuplicateKey(
                    f"{key.value!r} stands in line {lines[name]} and again in line {line}; keep one of them"
                )
            lines[name if isinstance(key, yaml.ScalarNode) else line] = line
        return super().construct_mapping(node, deep)


@lru_cache(maxsize=8)
def _load(path: Path, _stamp: int) -> Manifest:
    return parse(path.read_text(), str(path))


def load(path: Path | str = DEFAULT_PATH) -> Manifest:
    """The manifest at `path`, read once per version of the file. Raises `ManifestInvalid`."""
    path = Path(path)
    if not path.is_file():
        raise ManifestInvalid(f"There is no manifest at {path}; set EVERGREEN_MANIFEST to the right file.")
    return _load(path, path.stat().st_mtime_ns)


def read_manifest() -> Manifest:
    """The manifest that EVERGREEN_MANIFEST names, or the shipped one. For edges alone; below them it is passed in."""
    return load(os.environ.get("EVERGREEN_MANIFEST") or DEFAULT_PATH)


def _join_lines(error: Exception) -> str:
    return " ".join(str(error).split())


def _explain(error: ValidationError) -> str:
    return " ".join(_explain_problem(problem) for problem in error.errors(include_url=False))


def _explain_problem(problem: Any) -> str:
    loc, section = _walk(problem["loc"])
    field = ".".join(loc) or "the document"
    if problem["type"] == "extra_forbidden":
        return f"{field} is not a known setting{_suggest_name(loc[-1], section) or '; remove it.'}"
    if problem["type"] == "union_tag_invalid":
        tag, known = problem["ctx"]["tag"], re.findall(r"'([^']*)'", problem["ctx"]["expected_tags"])
        return f"{field}.kind: {tag!r} is not known{_suggest_name(tag, known) or ';'} choose one of {', '.join(known)}."
    if problem["type"] == "union_tag_not_found":
        return f"{field}.kind is missing; add it."
    if problem["type"] == "missing":
        return f"{field} is missing; add it."
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}{_explain_yaml_type(problem)}."


def _explain_yaml_type(problem: Any) -> str:
    """A word that YAML took for something else, such as no for a boolean, needs quotes."""
    given = problem.get("input")
    if problem["type"] != "string_type" or not isinstance(given, bool | int | float | date):
        return ""
    return f", but YAML reads this as {type(given).__name__} {given}; put it in quotes"


def _suggest_name(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _walk(loc: tuple[str | int, ...]) -> tuple[list[str], list[str]]:
    """The place as the file spells it, and the settings of the section its last part stands in.

    Where the section is one of several by `kind`, pydantic puts the kind into the place; no file has it there. What
    another section knows is no suggestion.
    """
    place: list[str] = []
    annotation: Any = Manifest
    settings: list[str] = []
    for part in map(str, loc):
        if part in (kinds := _map_kinds(annotation)):
            annotation = kinds[part]
            continue
        place.append(part)
        settings = list(getattr(annotation, "model_fields", {}))
        annotation = _find_inner_type(annotation, part)
    return place, settings


def _find_inner_type(annotation: Any, part: str) -> Any:
    """The type of what stands under `part`: a section's field, a mapping's value or a list's element."""
    if hasattr(annotation, "model_fields"):
        return _strip_optional(annotation.model_fields[part].annotation) if part in annotation.model_fields else None
    choices = [choice for choice in get_args(annotation) if choice is not Ellipsis]
    return _strip_optional(choices[-1]) if choices else None


def _strip_optional(annotation: Any) -> Any:
    """The section itself where it may be null as well."""
    choices = get_args(annotation)
    return choices[0] if len(choices) == 2 and choices[1] is NoneType else annotation


def _map_kinds(annotation: Any) -> dict[str, Any]:
    """The members of a union of sections, by their kind; empty for any other type."""
    if get_origin(annotation) not in (Union, UnionType):
        return {}
    members = [member for member in get_args(annotation) if "kind" in getattr(member, "model_fields", {})]
    return {kind: member for member in members for kind in get_args(member.model_fields["kind"].annotation)}
