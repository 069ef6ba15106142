"""Results of batch scoring in a bucket: the same names, and the same recovery, as in a directory."""

from __future__ import annotations

from datetime import date

import pytest

from include.data.store.local_store import LocalObjectStore
from include.data.store.s3_store import S3ObjectStore
from include.kernel.errors import Conflict
from include.scoring.core import scoring
from include.scoring.core.scoring import Part, Scores, ScoreSummary
from include.scoring.score_store import ScoreStore

DAY, KEY, VERSION = date(2026, 8, 1), "0123456789abcdef", "3"
PLACE = scoring.locate_result(DAY, VERSION, KEY)
PART = Part(index=0, first=0, rows=2)
TALLY = ScoreSummary(rows=2, positives=1, total=0.75)


@pytest.fixture(params=["directory", "bucket"])
def objects(request, buckets, tmp_path):
    if request.param == "directory":
        return LocalObjectStore(tmp_path / "store")
    buckets.client().create_bucket(Bucket=tmp_path.name.replace("_", "-").lower())
    return S3ObjectStore(f"s3://{tmp_path.name.replace('_', '-').lower()}/risk", tmp_path / "cache")


def test_a_part_counts_once_its_record_is_there_and_its_bytes_hold(objects):
    kept = ScoreStore(objects)
    record = kept.write_part(PLACE, KEY, PART, b"\x00PAR1\xff", TALLY)
    assert kept.read_part(PLACE, KEY, PART) == record
    assert kept.read_part(PLACE, KEY, PART.model_copy(update={"rows": 3})) is None
    assert kept.read_part(PLACE, "another", PART) is None
    found = objects.read(f"{PLACE}/{PART.name}")
    assert objects.write(f"{PLACE}/{PART.name}", b"damaged", found.tag)
    assert kept.read_part(PLACE, KEY, PART) is None
    assert kept.write_part(PLACE, KEY, PART, b"\x00PAR1\xff", TALLY) == kept.read_part(PLACE, KEY, PART) == record


def test_the_whole_is_found_by_its_name_and_finishing_it_again_changes_nothing(objects):
    kept = ScoreStore(objects)
    scores = finished(kept.write_part(PLACE, KEY, PART, b"rows", TALLY))
    assert kept.read_result(DAY, VERSION, KEY) is None
    kept.write_result(scores)
    before = objects.read(f"{PLACE}/scores.json")
    kept.write_result(scores)
    assert objects.read(f"{PLACE}/scores.json") == before
    assert kept.read_result(DAY, VERSION, KEY) == scores
    assert kept.build_uri(DAY, VERSION, KEY) == f"{objects.uri}/{PLACE}"


def test_who_loses_to_other_bytes_is_told_to_try_again(objects):
    """Another run writes between this one's look and its write."""

    class Raced:
        uri = objects.uri

        def read(self, key):
            return objects.read(key)

        def write(self, key, data, tag):
            objects.write(key, b"what another run wrote", tag)
            return objects.write(key, data, tag)

    with pytest.raises(Conflict, match="is being written by another run too"):
        ScoreStore(Raced()).write_part(PLACE, KEY, PART, b"ours", TALLY)


def finished(record) -> Scores:
    return Scores(
        key=KEY,
        model="credit",
        version=VERSION,
        digest="a" * 64,
        day=DAY,
        snapshot="b" * 64,
        id="id",
        positive="bad",
        negative="good",
        threshold=0.5,
        rows=2,
        tally=TALLY,
        parts=(record,),
    )
