"""Whatever row is accepted, the compiled form answers what the pipeline answers: at the ends of the numbers too."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.model import artifact
from include.model.artifact import Model
from include.model.compiled import compiling
from include.model.schema import Column
from include.serving.protocols.request_body import parse_rows
from include.serving.slot.input_schema import InputSchema
from tests import credit

KINDS = ("logistic", "random_forest", "boosting", "torch_mlp")
SCHEMA = InputSchema(credit.columns())
EDGES = (
    *("0", "-0", "-0.0", "5e-324", "1e-400", "1.7976931348623157e308", "-1.7976931348623157e308", "1" + "0" * 308),
    *("9223372036854775808", "18446744073709551616", "16777217", "3.4028235677973366e38", "3.5e38", "-1e39"),
)


def _cell(column: Column) -> st.SearchStrategy[str]:
    """A cell as JSON text."""
    if column.kind == "number":
        numbers = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-1e4, 1e4) | st.integers(-(2**53), 2**53)
        told = numbers.map(json.dumps) | st.sampled_from(EDGES)
    else:
        told = (st.sampled_from(column.categories) | st.text(max_size=4)).map(json.dumps)
    return told | st.just("null") if column.nullable else told


rows = st.fixed_dictionaries({column.name: _cell(column) for column in credit.columns()})


@pytest.fixture(scope="module", params=KINDS)
def forms(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    pipeline, place = credit.trained(request.param), tmp_path_factory.mktemp(request.param)
    artifact.save_compiled(compiling.compile_pipeline(pipeline.pipeline), pipeline.meta, place)
    return pipeline, artifact.load(place)


@settings(max_examples=50)
@given(st.lists(rows, min_size=1, max_size=20))
def test_both_forms_answer_every_accepted_row_alike(forms: tuple[Model, Model], sent: list[dict[str, str]]) -> None:
    texts = ("{" + ", ".join(f'"{name}": {cell}' for name, cell in row.items()) + "}" for row in sent)
    accepted = parse_rows(f'{{"rows": [{", ".join(texts)}]}}'.encode(), SCHEMA, 20)
    assert isinstance(accepted, list)
    expected, found = (form.predict_proba(accepted) for form in forms)
    assert np.all(np.isfinite(expected)) and np.all((expected >= 0) & (expected <= 1))
    assert found == pytest.approx(expected, abs=forms[1].meta.tolerance)
