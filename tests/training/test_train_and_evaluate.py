"""Training and judging against a real MLflow server."""

from __future__ import annotations

import json
import uuid
from datetime import date, timedelta

import mlflow
import pytest

from include.kernel.code_digest import TRAINING, compute_code_digest
from include.kernel.errors import NotEnoughData, Permanent, RequestInvalid
from include.model import artifact, features
from tests import credit, edge
from tests.delivered import read_day
from tests.job_world import FIRST, go_live, publish_rows


def runs_of(registry, experiment: str):
    with registry.open_client() as client:
        return client.search_runs([experiment])


class TestTrain:
    def test_every_candidate_is_logged_once_and_the_best_is_named(self, place, ask, registry):
        result = ask("train")
        found = runs_of(registry, result.outputs["experiment_id"])
        assert [run.info.status for run in found] == ["FINISHED", "FINISHED"]
        scores = {kind: run["metrics"]["cv_brier"] for kind, run in result.outputs["candidates"].items()}
        assert set(scores) == {"logistic", "boosting"}
        assert result.outputs["best"] == min(scores, key=scores.get)

    def test_a_retry_finds_the_finished_runs_and_trains_nothing(self, place, ask, registry):
        first, retry = ask("train"), ask("train")
        assert retry.outputs == first.outputs
        assert len(runs_of(registry, first.outputs["experiment_id"])) == 2
        assert len(list(edge.ledger().read_entries("model.trained"))) == 1

    def test_a_run_that_was_cut_off_is_replaced(self, place, ask, registry):
        first = ask("train")
        cut_off = first.outputs["candidates"]["boosting"]["run_id"]
        with registry.open_client() as client:
            client.update_run(cut_off, status="RUNNING")
        retry = ask("train")
        assert retry.outputs["candidates"]["boosting"]["run_id"] != cut_off
        assert retry.outputs["candidates"]["logistic"] == first.outputs["candidates"]["logistic"]
        found = runs_of(registry, first.outputs["experiment_id"])
        assert cut_off not in {run.info.run_id for run in found} and len(found) == 2

    def test_whoever_asks_for_the_same_training_again_gets_the_runs_that_are_there(self, place, ask):
        first, second = ask("train", key="a"), ask("train", key="b")
        assert first.outputs == second.outputs

    def test_the_same_training_for_another_intent_is_the_same_model_in_a_run_of_its_own(self, place, ask, registry):
        live, past = ask("train"), ask("train", intent="historical")
        for kind in ("logistic", "boosting"):
            one, two = (result.outputs["candidates"][kind] for result in (live, past))
            scores = [{**each["metrics"], "row_us": None} for each in (one, two)]  # all but the time a row took
            assert scores[0] == scores[1] and one["run_id"] != two["run_id"]
            with registry.open_client() as client:
                tags = [client.get_run(each["run_id"]).data.tags for each in (one, two)]
            assert tags[0]["evergreen.digest"] == tags[1]["evergreen.digest"]
            assert tags[0]["evergreen.runtime"] == ("treelite" if kind == "boosting" else "onnx")

    def test_a_run_tells_by_what_it_was_made(self, place, ask, registry):
        result = ask("train", intent="historical")
        with registry.open_client() as client:
            tags = client.get_run(result.outputs["run_id"]).data.tags
        assert tags["evergreen.manifest"] == place.digest
        assert tags["evergreen.code"] == compute_code_digest(*TRAINING)
        assert (tags["evergreen.as_of"], tags["evergreen.intent"]) == ("2026-08-05", "historical")
        assert tags["evergreen.data"].split(",") == [snapshot.id[:12] for snapshot in edge.store().list_snapshots()]

    def test_a_model_may_be_trained_on_some_columns_only(self, place, ask, registry, tmp_path):
        result = ask("train", columns=["Income", "Age", "Home"])
        with registry.open_client() as client:
            kept = client.download_artifacts(result.outputs["run_id"], "serving", str(tmp_path))
        model = artifact.load(tmp_path / "serving")
        assert kept and [column.name for column in model.meta.columns] == ["Home", "Age", "Income"]

    def test_an_unknown_column_is_refused_with_those_there_are(self, place, ask):
        with pytest.raises(RequestInvalid, match=r"names Incom, Sex; the contract has Seniority, Home"):
            ask("train", columns=["Sex", "Incom", "Age"])

    def test_nothing_of_the_future_is_trained_on(self, place, ask):
        """As of day four the labels of three days are known."""
        result = ask("train", as_of=date(2026, 8, 4))
        assert result.outputs["snapshots"] == [s.id for s in edge.store().list_snapshots()[:3]]

    def test_too_few_rows_is_a_sentence_that_says_how_many_there_are(self, place, ask):
        with pytest.raises(NotEnoughData) as caught:
            ask("train", as_of=date(2026, 8, 2))
        assert str(caught.value).startswith("As of 2026-08-02 only 1114 labelled rows on 1 days are known")
        assert "ingest more days" in str(caught.value)


class TestWhatCannotBeTrained:
    """Rows of the example, with something wrong in them."""

    @pytest.fixture
    def publish_changed(self, small, mlflow_url, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)

        def publish(change, **changes):
            candidates = {"logistic": {}, "boosting": {"max_iter": 20}}
            manifest = small(**{"name": f"credit-{uuid.uuid4().hex[:8]}", "train.candidates": candidates} | changes)
            for day in (FIRST + timedelta(days=number) for number in range(4)):
                rows = read_day(manifest, day)
                publish_rows(edge.store(), manifest, day, rows.assign(**change(rows)))

        yield publish
        mlflow.set_tracking_uri(None)

    @pytest.mark.parametrize("wild", [1e155, 1e300])
    def test_a_number_that_dwarfs_its_column_costs_the_candidates_that_scale_and_no_other(
        self, publish_changed, ask, wild
    ):
        publish_changed(lambda rows: {"Income": [wild, *rows["Income"][1:]]})
        result = ask("train")
        assert set(result.outputs["candidates"]) == {"boosting"} and set(result.outputs["failed"]) == {"logistic"}
        assert f"'logistic' cannot be trained: the column 'Income' holds {wild:g}" in result.summary
        assert ask("evaluate", run_id=result.outputs["run_id"]).outputs["gate"]["metrics"]["challenger"]["auc"] > 0.6

    def test_inputs_without_a_value_are_left_out_and_named(self, publish_changed, ask):
        everything = {"logistic": {}, "boosting": {"max_iter": 5}, "random_forest": {"n_estimators": 5}}
        everything["torch_mlp"] = {"max_epochs": 1}
        none = {"Income": float("nan"), "Home": None}
        publish_changed(lambda rows: none, **{"train.candidates": everything, "train.explain_rows": 5})
        result = ask("train")
        assert set(result.outputs["candidates"]) == set(everything)
        assert "without Home, Income, of which the training rows hold no values" in result.summary
        assert ask("evaluate", run_id=result.outputs["run_id"]).outputs["gate"]["checks"]

    def test_outcomes_of_one_class_are_not_enough_data(self, publish_changed, ask):
        publish_changed(lambda rows: {"Status": "good"})
        with pytest.raises(NotEnoughData, match="hold 0 positive and"):
            ask("train")

    def test_when_no_candidate_is_left_the_job_ends_in_their_sentences(self, publish_changed, ask):
        publish_changed(lambda rows: {"Income": [1e300, *rows["Income"][1:]]}, **{"train.candidates": {"logistic": {}}})
        with pytest.raises(Permanent, match="'logistic' cannot be trained: the column 'Income'"):
            ask("train")

    def test_a_feature_function_that_ranks_is_refused_by_its_name(self, publish_changed, ask, monkeypatch):
        name = f"{__name__}:ranked"
        for function in (features.resolve, features.apply, features.check_row_wise):
            monkeypatch.setattr(function, "__defaults__", (("tests",),))
        publish_changed(lambda rows: {}, **{"train.features": name})
        with pytest.raises(Permanent, match=f"'{name}' gives for a row depends on the rows beside it"):
            ask("train")

    def test_an_experiment_that_was_deleted_is_named_with_the_way_back(self, place, ask, registry):
        experiment = mlflow.MlflowClient(registry.uri).create_experiment(place.name)
        with registry.open_client() as client:
            client.delete_experiment(experiment)
            with pytest.raises(RequestInvalid, match=f"restore --experiment-id {experiment}"):
                ask("train")
            client.restore_experiment(experiment)
        assert ask("train").outputs["experiment_id"] == experiment


def ranked(table):
    return table.assign(rank=table["Income"].rank(pct=True))


class TestWhatARunHolds:
    """A network and a searched forest, with calibration days: everything a run may hold, in one training."""

    @pytest.fixture
    def trained(self, place, small, ask):
        space = {"boosting": {"learning_rate": {"low": 0.05, "high": 0.3, "log": True}}}
        changes = {
            "name": place.name,
            "train.candidates": {"boosting": {"max_iter": 20}, "torch_mlp": {"max_epochs": 3}},
            "train.calibration_days": 1,
            "train.tuning": {"trials": 2, "space": space},
        }
        small(**changes)
        return ask("train")

    def test_the_trials_the_variant_and_a_model_for_mlflow_are_there(self, trained, registry, tmp_path):
        found = trained.outputs["candidates"]
        with registry.open_client() as client:
            client.download_artifacts(found["boosting"]["run_id"], "", str(tmp_path / "boosting"))
            client.download_artifacts(found["torch_mlp"]["run_id"], "", str(tmp_path / "torch"))
            params = client.get_run(found["boosting"]["run_id"]).data.params
        trials = json.loads((tmp_path / "boosting/trials.json").read_text())
        assert len(trials) == 2 and float(params["learning_rate"]) in {trial["learning_rate"] for trial in trials}
        assert list((edge.studies()).glob("*")) == []

        metrics = found["torch_mlp"]["metrics"]
        assert metrics["int8_size"] < metrics["int8_full_size"] and 0 < metrics["int8_mean"] <= metrics["int8_worst"]
        assert artifact.read_meta(tmp_path / "torch/serving-int8").precision == "int8"

        served = artifact.load(tmp_path / "boosting/serving")
        assert served.meta.calibration.method == "sigmoid" and served.meta.path == "compiled"
        asked = credit.data()[[column.name for column in served.meta.columns]].head(20)
        model = mlflow.pyfunc.load_model(f"runs:/{found['boosting']['run_id']}/model")
        asked = asked.astype({c.name: float for c in served.meta.columns if c.kind == "number"})
        assert model.predict(asked).tolist() == served.predict_proba(credit.rows()[:20]).tolist()


class TestEvaluate:
    def test_the_first_model_meets_the_floors_only(self, place, ask):
        trained = ask("train")
        result = ask("evaluate", run_id=trained.outputs["run_id"])
        gate = result.outputs["gate"]
        assert result.verdict == "yes", result.summary
        assert gate["champion_version"] is None and set(gate["metrics"]) == {"challenger"}
        assert not any("non" in check["name"] or "superior" in check["name"] for check in gate["checks"])

    def test_the_report_lies_beside_the_run_as_numbers_and_as_a_page(self, place, ask, registry, tmp_path):
        trained = ask("train")
        result = ask("evaluate", run_id=trained.outputs["run_id"])
        with registry.open_client() as client:
            for name in ("gate.json", "gate.html"):
                client.download_artifacts(trained.outputs["run_id"], name, str(tmp_path))
            run = client.get_run(trained.outputs["run_id"]).data
        document = json.loads((tmp_path / "gate.json").read_text())
        assert document == result.outputs["gate"]
        assert run.tags["evergreen.gate"] == document["verdict"] == "passed"
        low, value, high = (run.metrics[f"holdout_auc{end}"] for end in ("_low", "", "_high"))
        assert low < value < high and value == pytest.approx(document["metrics"]["challenger"]["auc"])
        assert len(document["folds"]) == 5
        assert {part["name"] for part in document["slices"]} >= {"Job=fixed", "Age=<30"}
        page = (tmp_path / "gate.html").read_text()
        assert all(check["name"] in page.replace("&lt;", "<").replace("&gt;", ">") for check in document["checks"])

    def test_a_policy_may_refuse_what_the_gate_would_pass_and_is_named(self, small, place, ask, tmp_path):
        policy = tmp_path / "never.rego"
        policy.write_text('package evergreen.gate\n\ndeny contains "not on a Friday" if input.verdict == "passed"\n')
        trained = ask("train")
        small(name=place.name, **{"gate.policy": str(policy)})
        result = ask("evaluate", run_id=trained.outputs["run_id"])
        assert result.verdict == "no"
        assert result.summary.startswith("refused: not on a Friday")
        assert result.outputs["gate"]["policy"]["file"] == "never.rego"
        assert len(result.outputs["gate"]["policy"]["sha256"]) == 64

    def test_a_policy_that_cannot_be_run_ends_it_before_anything_is_fetched(self, small, ask, tmp_path):
        policy = tmp_path / "broken.rego"
        policy.write_text("package evergreen.gate\n\ndeny contains\n")
        small(**{"gate.policy": str(policy)})
        with pytest.raises(Permanent, match=r"broken\.rego cannot be run, line 3"):
            ask("evaluate", run_id="none")

    def test_the_same_model_again_is_not_better_and_is_a_no_and_no_failure(self, place, ask, registry):
        run_id = ask("train").outputs["run_id"]
        go_live(registry, run_id)
        result = ask("evaluate", key="k2", run_id=run_id)
        assert result.verdict == "no"
        assert result.outputs["gate"]["champion_version"] == "1"
        assert result.outputs["gate"]["metrics"]["champion"] == result.outputs["gate"]["metrics"]["challenger"]

    def test_the_digest_is_that_of_the_artifact_that_will_be_served(self, place, ask, registry):
        trained = ask("train")
        result = ask("evaluate", run_id=trained.outputs["run_id"])
        with registry.open_client() as client:
            tags = client.get_run(trained.outputs["run_id"]).data.tags
        assert result.outputs["digest"] == tags["evergreen.digest"]
