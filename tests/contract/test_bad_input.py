"""A small part of `make prove-data` in every test run: one damage of each sort, a kill, and the proof's own teeth."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proofs import bad_input
from tests.proofs.bad_input import Case
from tests.proofs.data_crashes import count_writes, killed_before_write
from tests.proofs.data_days import bad_delivery
from tests.proofs.data_proof import Proof
from tests.proofs.delivery import as_csv, rows_of

PICKED = ("cut-off last line", "byte-flipped Parquet", "renamed column", "a newline in a column's name (Parquet)")


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Proof:
    proof = Proof(home=tmp_path_factory.mktemp("proof"))
    proof.prepare()
    return proof


@pytest.mark.parametrize("case", [each for each in bad_input.CASES if each.name in PICKED], ids=lambda each: each.name)
def test_a_bad_delivery_is_refused_in_a_sentence_and_the_next_good_one_is_published(proof: Proof, case: Case) -> None:
    bad_delivery(proof, case)


def test_a_kill_in_the_middle_of_publishing_is_mended_by_the_next_run(proof: Proof) -> None:
    killed_before_write(proof, count_writes(proof) // 2)


def test_a_good_delivery_does_not_pass_as_a_bad_one(proof: Proof) -> None:
    with pytest.raises(AssertionError, match="ended with 0"):
        bad_delivery(proof, Case("good", lambda: as_csv(rows_of()), ()))


def test_a_sentence_that_names_too_little_does_not_pass(proof: Proof) -> None:
    with pytest.raises(AssertionError, match="says only"):
        bad_delivery(proof, Case("cut", lambda: bad_input.good()[:-9], ("row 7", Path("x").name)))
