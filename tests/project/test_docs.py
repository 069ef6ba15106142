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
DESIGN = (ROOT / "docs/design.md").read_text()
SETTINGS = (ROOT / "docs/settings.md").read_text()
NAMES = ("include/data/README.md", "findings/README.md", ".github/pull_request_template.md")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / name for name in NAMES)])
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
YAML_FILES = sorted(
    [
        *(ROOT / "k8s").rglob("*.yaml"),
        *(ROOT / "docker").rglob("*.yaml"),
        *ROOT.glob("*.yaml"),
        *ROOT.glob(".*.yaml"),
        *(ROOT / ".github").rglob("*.yml"),
    ],
)
# dotted, and no setting: ledger entries and an artifact
NO_SETTINGS = {
    "contract.json",
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


def section(title: str, text: str = README) -> str:
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@document
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    named = {found for text in code(path.read_text()) for found in re.findall(r"\bmake ([a-z0-9-]+)", text)}
    assert named <= make_targets()


@document
def test_every_link_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\[[^\]\n]*\]\(([^)]+)\)", path.read_text())
    assert [link for link in links if "://" not in link and not _leads_somewhere(path, link)] == []


def _leads_somewhere(path: Path, link: str) -> bool:
    """A file beside the document that links it, and where a heading is named, that heading in it."""
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    if not target.exists() or not anchor:
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", target.read_text(), re.MULTILINE)
    return anchor in {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}


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


def test_everything_in_the_tree_of_the_design_exists() -> None:
    paths = list(_tree(section("The tree", DESIGN).split("```")[1]))
    assert len(paths) > 20
    assert [str(path) for path in paths if not (ROOT / path).exists()] == []


def test_the_layer_map_names_every_package_of_include_and_no_other() -> None:
    drawn = section("The layer map", (ROOT / "CONTRIBUTING.md").read_text()).split("```")[1]
    names = re.findall(r"^ +(?:edges +|slices +)?([a-z]+) {2,}\S", drawn.split("edges", 1)[1], re.MULTILINE)
    packages = {path.parent.name for path in (ROOT / "include").glob("*/__init__.py")}
    assert sorted(names) == sorted([*packages, "manifest"])


def _tree(block: str) -> Iterator[Path]:
    """A line names one thing and describes it, or names several; two spaces further in is inside the last folder."""
    folder = Path()
    for line in filter(None, block.splitlines()):
        columns = re.split(r"\s{2,}", line.strip())
        names = columns if all(" " not in column for column in columns) else columns[:1]
        inside = folder if line.startswith("  ") else Path()
        yield from (inside / name for name in names)
        folder = folder if line.startswith("  ") else Path(names[0])


def test_every_setting_of_the_stack_is_listed_with_its_default() -> None:
    for name, field in EmbeddedSettings.model_fields.items():
        assert f"`EVERGREEN_{name.upper()}`" in SETTINGS
        if isinstance(field.default, int | float):
            assert f"| `EVERGREEN_{name.upper()}` | {field.default:g} |" in SETTINGS


def test_the_readmes_picture_shows_the_assets_of_the_code() -> None:
    drawn = set(re.findall(r"\(\[([a-z.]+)\]\)", section("The loop")))
    assert drawn == set(
        re.findall(r'_make_asset\(\s*"([a-z.]+)"\)', (ROOT / "plugins/evergreen/assets.py").read_text())
    )


def test_the_manifest_of_the_readme_is_valid_with_the_rest_of_ours() -> None:
    written = yaml.safe_load(re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1])  # type: ignore[index]
    ours = yaml.safe_load(manifests.DEFAULT_PATH.read_text())
    assert manifests.parse(yaml.safe_dump(ours | written)).name == "churn"


def test_the_readme_leads_to_every_document_and_stays_short() -> None:
    assert all(f"(docs/{path.name})" in README for path in (ROOT / "docs").glob("*.md"))
    assert len(README.splitlines()) < 180


def test_the_index_of_decisions_leads_to_each_by_its_title() -> None:
    index = (ROOT / "docs/adr/README.md").read_text()
    decisions = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    template, decided = decisions[0], decisions[1:]
    assert f"({template.name})" in index
    for path in decided:
        number, title = path.read_text().splitlines()[0].removeprefix("# ").split(" ", 1)
        assert path.name.startswith(f"{number}-")
        assert f"| [{number}]({path.name}) | {title} |" in index
    assert len({path.name[:4] for path in decisions}) == len(decisions)


@pytest.mark.parametrize("path", sorted((ROOT / "docs/adr").glob("[0-9]*.md")), ids=lambda path: path.stem)
def test_every_decision_has_the_parts_of_the_template(path: Path) -> None:
    parts = ["Context", "Decision", "Instead of", "Because", "Consequences"]
    assert re.findall(r"^## (.+)$", path.read_text(), re.MULTILINE) == parts
    assert "\nStatus: " in path.read_text()


def test_every_finding_is_listed_and_every_listed_one_is_there() -> None:
    listed = re.findall(r"^\| \[([a-z0-9_]+\.sh)\]", (ROOT / "findings/README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "findings").glob("*.sh"))


def test_ci_runs_the_test_command_of_the_readme() -> None:
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec make test"
    assert any(line.startswith("make test ") for block in fences(README, "bash") for line in block.splitlines())


def test_the_two_halves_of_the_tests_in_ci_are_all_tests() -> None:
    """What `make test-unit` leaves out is what `make test-e2e` runs, and both are jobs of the workflow."""
    makefile = (ROOT / "Makefile").read_text()
    left_out = re.search(r"^E2E := (.+)$", makefile, re.MULTILINE)[1].split()  # type: ignore[index]
    assert all((ROOT / folder).is_dir() for folder in left_out)
    assert "\ntest-unit: install" in makefile and "$(PYTEST) tests $(E2E:%=--ignore=%)" in makefile
    assert "$(PYTEST) $(E2E)\n" in makefile
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    run = {name: " ".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
    assert ("make lint" in run["lint"], "make test-unit" in run["unit"], "make test-e2e" in run["e2e"]) == (True,) * 3
    assert set(jobs["images"]["strategy"]["matrix"]["target"]) == set(
        re.findall(r"^FROM base AS (\w+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    ) - {"lists"}  # the stage that writes what pip installs


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_few_rights_and_names_what_it_uses_by_version(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    used = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert [one for one in used if not re.search(r"@v\d+$", one) and not one.startswith("./")] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_make_target_of_a_workflow_exists(path: Path) -> None:
    assert set(re.findall(r"\bmake ([a-z0-9-]+)", path.read_text())) <= make_targets()


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
    ours = yaml.safe_load(envoy.render_bootstrap(EmbeddedSettings(home=Path("/var/lib/evergreen"))))
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
