"""A version's blessing and papers in a real MLflow server."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from include.kernel.errors import NotBlessed, RequestInvalid
from include.model.blessing.blessing import Blessing, sign
from include.registry.mlflow_registry import MlflowRegistry
from tests.blessed import KEY, document, envelope

PAPERS = {"model_card.html": "<p>é</p>", "model_card.md": "é", "blessing.json": "{}"}


@pytest.fixture
def registry(mlflow_url: str) -> MlflowRegistry:
    return MlflowRegistry(f"credit-{uuid.uuid4().hex[:8]}", mlflow_url)


def started(registry: MlflowRegistry, drawing: str | None = None) -> str:
    with registry.open_client() as client:
        run_id = client.create_run("0").info.run_id
        client.log_param(run_id, "candidate", "boosting")
        if drawing is not None:
            client.log_text(run_id, drawing, "curves.svg")
    return run_id


def test_a_blessing_comes_back_as_it_was_signed_also_a_large_one(registry):
    run_id = started(registry)
    version = registry.register(run_id, f"runs:/{run_id}/model")
    with pytest.raises(NotBlessed, match="carries no blessing"):
        registry.fetch_blessing(version)
    large = envelope(document(checks=document()["checks"] * 200))
    registry.bless(version, large)
    assert registry.fetch_blessing(version) == large and len(large) > 20_000


def test_the_longest_blessing_and_description_are_kept(registry):
    run_id = started(registry)
    version = registry.register(run_id, f"runs:/{run_id}/model")
    content = document(data=[f"{number:064x}" for number in range(5000)], checks=document()["checks"] * 1000)
    signed = sign(Blessing.model_validate(content), KEY)
    registry.bless(version, signed)
    registry.describe(version, run_id, "a" * 6000, PAPERS)
    with registry.open_client() as client:
        assert len(client.get_model_version(registry.name, version).description) == 5000
    assert registry.fetch_blessing(version) == signed


def test_what_mlflow_says_by_the_way_is_no_line_on_stderr(registry, capfd):
    run_id = started(registry)
    capfd.readouterr()
    registry.register(run_id, f"runs:/{run_id}/model")
    assert capfd.readouterr().err == ""


def test_the_papers_lie_with_the_run_and_the_version_says_where(registry, tmp_path: Path):
    run_id = started(registry)
    version = registry.register(run_id, f"runs:/{run_id}/model")
    for _ in range(2):  # a retry says the same again
        registry.describe(version, run_id, "boosting as of a day", PAPERS)
    with registry.open_client() as client:
        found = client.get_model_version(registry.name, version)
        place = Path(client.download_artifacts(run_id, "card", str(tmp_path)))
    assert (found.description, found.tags["evergreen.card"]) == (
        "boosting as of a day",
        f"runs:/{run_id}/card/model_card.html",
    )
    assert {path.name: path.read_text() for path in place.iterdir()} == PAPERS


@pytest.mark.parametrize("drawing", [None, "<svg>é</svg>"])
def test_a_run_tells_its_params_its_page_and_its_drawing_if_it_has_one(registry, drawing):
    run_id = started(registry, drawing)
    params, url, found = registry.read_run(run_id)
    assert (params, found) == ({"candidate": "boosting"}, drawing or "")
    assert url.endswith(f"/#/experiments/0/runs/{run_id}")


def test_a_version_is_marked_while_it_soaks_and_not_any_more_once_it_is_the_champion(registry):
    assert (registry.find_champion(), registry.list_soaking()) == (None, [])
    run_id = started(registry)
    version = registry.register(run_id, f"runs:/{run_id}/model")
    for _ in range(2):
        registry.mark_soaking(version)
    assert (registry.find_champion(), registry.list_soaking()) == (None, [version])
    for _ in range(2):
        registry.promote(version)
    assert (registry.find_champion(), registry.list_soaking()) == (version, [])
    registry.unmark_soaking([version])
    assert registry.list_soaking() == []


def test_what_somebody_deleted_in_mlflow_is_one_sentence(registry, tmp_path: Path):
    run_id = started(registry)
    with registry.open_client() as client:
        client.delete_run(run_id)
    with pytest.raises(RequestInvalid, match=r"MLflow at .* does not do what it is asked") as refusal:
        registry.describe("1", run_id, "text", PAPERS)
    assert "\n" not in str(refusal.value)
