"""The documents are held to the code: commands, paths, settings and examples that are named must be there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import yaml

from include import manifest as manifests
from include.embedded.configuration.settings import EmbeddedSettings
from include.embedded.stack import envoy
from include.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
NAMES = ("README.md", "CHANGELOG.md", "include/data/README.md")
DOCUMENTS = [*(ROOT / name for name in NAMES), *sorted((ROOT / "docs").glob("*.md"))]
YAML_FILES = sorted(
    [*(ROOT / "k8s").rglob("*.yaml"), *(ROOT / "docker").rglob("*.yaml"), *ROOT.glob("*.yaml")],
)
# dotted, and no setting: ledger entries and an artifact
NO_SETTINGS = {
    "gate.html",
    "gate.json",
    "release.live",
    "release.rejected",
    "release.reverted",
    "release.soaking",
    "retraining.declined",
    "gate.refused",
    "gate.inconclusive",
}
document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def fences(text: str, language: str = "") -> list[str]:
    return re.findall(rf"```{language}[a-z]*\n(.*?)```", re.sub(r"^ +", "", text, flags=re.MULTILINE), re.DOTALL)


def code(text: str) -> list[str]:
    """Everything set as code: lines of fenced blocks, and spans."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [*spans, *(line for block in fences(text) for line in block.splitlines())]


def section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


@document
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {found for text in code(path.read_text()) for found in re.findall(r"\bmake ([a-z0-9-]+)", text)}
    assert named <= targets


@document
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"(?<!!)\[[^\]\n]*\]\(([^)]+)\)", path.read_text())
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not missing


@document
def test_every_variable_that_is_named_is_read_by_the_code(path: Path) -> None:
    known = {f"EVERGREEN_{name.upper()}" for name in EmbeddedSettings.model_fields}
    sources = "\n".join(file.read_text() for file in (ROOT / "include").rglob("*.py"))
    named = set(re.findall(r"EVERGREEN_[A-Z_]+[A-Z]", path.read_text()))
    assert {name for name in named - known if name not in sources} == set()


@document
def test_every_manifest_setting_that_is_named_exists(path: Path) -> None:
    sections = "|".join(Manifest.model_fields)
    named = {text for text in code(path.read_text()) if re.fullmatch(rf"({sections})(\.[a-z_]+)+", text)}
    assert {name for name in named - NO_SETTINGS if not _is_setting(name)} == set()


def _is_setting(name: str) -> bool:
    """A section may be one of several by its kind; a setting of any of them is one."""
    known: list[Any] = [Manifest]
    for part in name.split("."):
        found = [one.model_fields[part].annotation for one in known if part in getattr(one, "model_fields", {})]
        known = [choice for one in found for choice in (one, *get_args(one))]
    return bool(known)


@document
def test_every_dag_that_is_triggered_exists(path: Path) -> None:
    named = re.findall(r"(?:dags trigger|--dag-id) ([a-z_]+)", path.read_text())
    assert all((ROOT / "dags" / f"{name}.py").exists() for name in named)


def test_everything_in_the_readmes_tree_exists() -> None:
    paths = list(_tree(section("The tree").split("```")[1]))
    assert len(paths) > 20
    assert [str(path) for path in paths if not (ROOT / path).exists()] == []


def _tree(block: str) -> Iterator[Path]:
    """A line names one thing and describes it, or names several; two spaces further in is inside the last folder."""
    folder = Path()
    for line in filter(None, block.splitlines()):
        columns = re.split(r"\s{2,}", line.strip())
        names = columns if all(" " not in column for column in columns) else columns[:1]
        inside = folder if line.startswith("  ") else Path()
        yield from (inside / name for name in names)
        folder = folder if line.startswith("  ") else Path(names[0])


def test_the_readme_lists_every_setting_of_the_stack_with_its_default() -> None:
    table = section("Settings")
    for name, field in EmbeddedSettings.model_fields.items():
        assert f"`EVERGREEN_{name.upper()}`" in table
        if isinstance(field.default, int | float):
            assert f"| `EVERGREEN_{name.upper()}` | {field.default:g} |" in table


def test_the_readmes_picture_shows_the_assets_of_the_code() -> None:
    drawn = set(re.findall(r"\(\[([a-z.]+)\]\)", section("The loop")))
    assert drawn == set(re.findall(r'_asset\("([a-z.]+)"\)', (ROOT / "plugins/evergreen/assets.py").read_text()))


def test_the_manifest_of_the_readme_is_valid_with_the_rest_of_ours() -> None:
    written = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])  # type: ignore[index]
    ours = yaml.safe_load(manifests.DEFAULT_PATH.read_text())
    assert manifests.parse(yaml.safe_dump(ours | written)).name == "churn"


def test_the_readme_leads_to_every_document_and_stays_short() -> None:
    assert all(f"(docs/{path.name})" in README for path in (ROOT / "docs").glob("*.md"))
    assert len(README.splitlines()) < 400


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    assert any(line.startswith("make test ") for block in fences(README, "bash") for line in block.splitlines())


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_file_parses(path: Path) -> None:
    assert all(isinstance(content, dict) for content in yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize(
    "listing", sorted((ROOT / "k8s").rglob("kustomization.yaml")), ids=lambda path: path.parent.name
)
def test_kustomize_lists_every_file_beside_it(listing: Path) -> None:
    content = yaml.safe_load(listing.read_text())
    made = [each for kind in ("configMapGenerator", "secretGenerator") for each in content.get(kind, [])]
    listed = [*content["resources"], *(name for each in made for name in each["files"])]
    beside = {path.name for path in listing.parent.iterdir()} - {"kustomization.yaml"}
    assert beside <= {*listed} | {name.split("/")[0] for name in listed}
    assert all((listing.parent / name).exists() for name in listed)


def test_the_kubernetes_namespace_is_that_of_the_manifest() -> None:
    namespace = yaml.safe_load((ROOT / "k8s/base/namespace.yaml").read_text())["metadata"]["name"]
    assert namespace == manifests.load().jobs.namespace


def test_the_proxy_of_compose_is_that_of_the_stack() -> None:
    """But for the listener, which other containers reach, and the access log, which the engine collects."""
    theirs = yaml.safe_load((ROOT / "docker/envoy.yaml").read_text())
    ours = yaml.safe_load(envoy.bootstrap(EmbeddedSettings(home=Path("/var/lib/evergreen"))))
    listener = ours["static_resources"]["listeners"][0]
    listener["address"]["socket_address"]["address"] = "0.0.0.0"
    connections = listener["filter_chains"][0]["filters"][0]["typed_config"]
    connections["access_log"][0]["typed_config"]["path"] = "/dev/stdout"
    assert theirs == ours


def test_the_data_is_what_its_readme_says() -> None:
    rows = pd.read_csv(ROOT / "include/data/credit_data.csv", keep_default_na=False, na_values=[""])
    assert rows.shape == (4454, 14)
    assert rows["Status"].value_counts().to_dict() == {"good": 3200, "bad": 1254}
    assert (rows.isna().sum().sum(), rows.isna().any(axis=1).sum(), rows.duplicated().sum()) == (455, 415, 2)
