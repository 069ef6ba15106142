import pytest

from include.kernel.errors import Permanent
from include.model.pipelines import BUILDERS, build
from tests import credit


@pytest.mark.parametrize("kind", BUILDERS)
def test_a_candidate_takes_missing_values_and_unseen_categories(kind: str) -> None:
    probabilities = credit.trained(kind).predict_proba([{}, {"Job": "astronaut"}, {"Age": 300}])
    assert ((probabilities > 0) & (probabilities < 1)).all()


@pytest.mark.parametrize("kind", BUILDERS)
def test_the_served_probability_is_that_of_the_positive_class(kind: str) -> None:
    labels = credit.data()["Status"][:500]
    probabilities = credit.trained(kind).predict_proba(credit.rows()[:500])
    assert probabilities[labels == "bad"].mean() > probabilities[labels == "good"].mean() + 0.1


@pytest.mark.parametrize("kind", BUILDERS)
def test_numbers_alone_or_categories_alone_are_enough(kind: str) -> None:
    for wanted in ("number", "category"):
        some = [column for column in credit.columns() if column.kind == wanted]
        table = credit.data()[[column.name for column in some]].iloc[:200]
        build(kind, some, {}, 1).fit(table, (credit.data()["Status"][:200] == "bad").astype(int))


def test_an_unknown_candidate_is_answered_with_the_known_ones() -> None:
    with pytest.raises(Permanent, match="'magic'; known are boosting, logistic, random_forest, torch_mlp"):
        build("magic", credit.columns(), {}, 1)


def test_a_parameter_the_model_does_not_know_is_named() -> None:
    with pytest.raises(Permanent, match="max_itr"):
        build("boosting", credit.columns(), {"max_itr": 3}, 1)
