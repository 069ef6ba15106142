"""Deliveries: damaged ones, and days that come late, again, corrected, or not at all."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial

from include.data.store.local_store import LocalSnapshotStore
from tests.proofs import bad_input
from tests.proofs.bad_input import FORBIDDEN, INJECTED, Case
from tests.proofs.data_proof import BEFORE, NEXT, Proof
from tests.proofs.delivery import DAY, as_csv, as_parquet, rows_of
from tests.proofs.outcomes import Named, must


def bad_delivery(proof: Proof, case: Case) -> None:
    pipeline = proof.pipeline(case.suffix, contract=case.contract)
    if case.source:
        files = {"kind": "files", "path": f"{pipeline.inbox}/{{day}}.{case.suffix}"}
        pipeline.source = {**files, **case.source}
        pipeline.configure()
    pipeline.deliver(case.content())
    before, ended = pipeline.published(), pipeline.weighed()
    proof.refused(pipeline, ended, before, case.exit, case.kind, *case.told)
    must(ended.peak_mib <= case.peak_mib, f"took {ended.peak_mib:.0f} MiB")
    proof.largest("peak_mib", round(ended.peak_mib))
    pipeline.deliver(case.good() if case.good else rows_of())
    proof.recovers(pipeline)


def a_day_without_rows(proof: Proof, content: bytes | None, suffix: str) -> None:
    pipeline = proof.pipeline(suffix)
    if content is not None:
        pipeline.deliver(content)
    before, ended = pipeline.published(), pipeline.ingest()
    must((ended.exit, ended.verdict) == (0, "no"), f"ended with {ended.exit} {ended.verdict}: {ended.log}")
    must(ended.told == f"no rows were delivered for {DAY}; nothing was published", f"says {ended.told}")
    must(pipeline.published() == before and pipeline.leftovers() == [], "left something")
    proof.recovers_with_good_rows(pipeline)


def ids_of_another_day(proof: Proof) -> None:
    pipeline = proof.pipeline()
    rows = rows_of()
    rows[5]["customer"] = rows_of(BEFORE)[7]["customer"]
    pipeline.deliver(rows)
    before, ended = pipeline.published(), pipeline.ingest()
    proof.refused(pipeline, ended, before, 65, "DataRefused", "customer: new id", "1 of 100 rows (6)", str(DAY))
    proof.recovers_with_good_rows(pipeline)


def a_late_day(proof: Proof) -> None:
    """The day after is there already; the late one counts from the day it came, and moves no other."""
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of(NEXT), NEXT)
    must(pipeline.ingest(NEXT).exit == 0, "the day after could not be published")
    before = pipeline.published()
    pipeline.deliver(rows_of())
    ended = pipeline.ingest(as_of=DAY + timedelta(days=9))
    must(ended.exit == 0 and ended.outputs["id"] == proof.good_id, ended.log)
    must(ended.outputs["known_on"] == str(DAY + timedelta(days=9)), f"known on {ended.outputs['known_on']}")
    must(before.items() <= pipeline.published().items(), "moved another day")


def the_same_delivery_again(proof: Proof) -> None:
    pipeline = proof.pipeline()
    proof.recovers_with_good_rows(pipeline)
    before, ended = pipeline.published(), pipeline.ingest(as_of=DAY + timedelta(days=9))
    must(ended.exit == 0 and ended.outputs["changed"] is False, ended.log)
    must(pipeline.published() == before, "rewrote something")


def a_corrected_delivery(proof: Proof) -> None:
    """A new version from the day it came; the old one is still there for whoever asks about the days between."""
    pipeline = proof.pipeline()
    proof.recovers_with_good_rows(pipeline)
    before = pipeline.published()
    pipeline.deliver(rows_of(seed=2))
    ended = pipeline.ingest(as_of=DAY + timedelta(days=9))
    must(ended.exit == 0 and ended.outputs["id"] != proof.good_id, ended.log)
    versions = [(s.id, str(s.known_on)) for s in pipeline.snapshots() if s.day == DAY]
    wanted = [(proof.good_id, str(NEXT)), (ended.outputs["id"], str(DAY + timedelta(days=9)))]
    must(versions == wanted, f"versions are {versions}")
    pointer = f"days/{DAY}.json"
    must({**before, pointer: ""}.items() <= {**pipeline.published(), pointer: ""}.items(), "changed what was published")


def the_past_is_not_rewritten(proof: Proof) -> None:
    pipeline = proof.pipeline()
    proof.recovers_with_good_rows(pipeline)
    pipeline.deliver(rows_of(seed=2))
    before, ended = pipeline.published(), pipeline.ingest(intent="historical")
    proof.refused(
        pipeline, ended, before, 65, "DataRefused", str(DAY), "the past is not rewritten", "run ingest for it"
    )
    proof.recovers_with_good_rows(pipeline)


def another_order_of_columns(proof: Proof, suffix: str) -> None:
    """Parquet or CSV, columns in any order: the same rows are the same snapshot."""
    pipeline = proof.pipeline(suffix)
    rows = [dict(reversed(row.items())) for row in rows_of()]
    pipeline.deliver(as_csv(rows) if suffix == "csv" else as_parquet(rows, row_group_size=17, compression="gzip"))
    proof.recovers(pipeline)


def files_that_differ(proof: Proof) -> None:
    pipeline = proof.pipeline()
    pipeline.source = {"kind": "files", "path": f"{pipeline.inbox}/{{day}}-*.csv"}
    pipeline.configure()
    (pipeline.inbox / f"{DAY}-a.csv").write_bytes(as_csv(rows_of()[:50]))
    less = [{name: cell for name, cell in row.items() if name != "tenure"} for row in rows_of()[50:]]
    (pipeline.inbox / f"{DAY}-b.csv").write_bytes(as_csv(less))
    before, ended = pipeline.published(), pipeline.ingest()
    proof.refused(pipeline, ended, before, 65, "DataRefused", f"{DAY}-b.csv", "'tenure'", "with the same columns")
    (pipeline.inbox / f"{DAY}-b.csv").write_bytes(as_csv([row | {"gift": 1} for row in rows_of()[50:]]))  # a warning
    proof.recovers(pipeline)


def an_unmounted_folder(proof: Proof) -> None:
    pipeline = proof.pipeline()
    pipeline.deliver(rows_of())
    pipeline.inbox.rename(pipeline.home / "away")
    before, ended = pipeline.published(), pipeline.ingest()
    proof.refused(pipeline, ended, before, 75, "ServiceUnavailable", str(pipeline.inbox), "mount or create it")
    (pipeline.home / "away").rename(pipeline.inbox)
    proof.recovers(pipeline)


def injected_rows_in_data_docs(proof: Proof) -> None:
    """Great Expectations shows examples of bad cells in its pages, which are scripts and markup themselves."""
    pipeline = proof.pipeline(contract={"data_docs": "always"})
    pipeline.deliver(bad_input.changed(9, plan=INJECTED))
    ended = pipeline.ingest()
    must((ended.exit, "plan: in set" in ended.told) == (65, True), ended.log)
    pages = [page.read_text() for page in (pipeline.store / "data_docs").rglob("*.html")]
    must(any("alert(1)" in page for page in pages), "no page shows the bad cell")
    must(not [page for page in pages if "<script>alert(1)" in page], "a page runs the bad cell")


def injected_rows_set_aside(proof: Proof) -> None:
    """A row in quarantine is shown to people: in a page, where it must be text and nothing else."""
    pipeline = proof.pipeline(contract={"max_quarantined": 0.05})
    pipeline.deliver(bad_input.changed(9, plan=INJECTED))
    ended = pipeline.ingest()
    must(ended.exit == 0 and ended.outputs["quarantined"] == 1, ended.log)
    [snapshot] = [each for each in pipeline.snapshots() if each.day == DAY]
    page = LocalSnapshotStore(pipeline.store).fetch_file(snapshot, "quarantine.html").read_text()
    shown = page + ended.log + json.dumps(ended.outputs)
    must(not [mark for mark in FORBIDDEN if mark in shown], "lets markup through")
    must("&lt;script&gt;" in page or "\\x3cscript" in page, "does not show the row")


def of_days(proof: Proof) -> list[Named]:
    header = as_csv(rows_of()[:1]).splitlines(keepends=True)[0]
    return [
        ("empty day: nothing delivered", partial(a_day_without_rows, proof, None, "csv")),
        ("empty day: a header alone", partial(a_day_without_rows, proof, header, "csv")),
        ("empty day: Parquet without rows", partial(a_day_without_rows, proof, as_parquet([]), "parquet")),
        ("ids of another day", partial(ids_of_another_day, proof)),
        ("late: the day after is published already", partial(a_late_day, proof)),
        ("delivered again, the same", partial(the_same_delivery_again, proof)),
        ("delivered again, corrected", partial(a_corrected_delivery, proof)),
        ("delivered again, corrected by a backfill", partial(the_past_is_not_rewritten, proof)),
        ("columns in another order (CSV)", partial(another_order_of_columns, proof, "csv")),
        ("columns in another order (Parquet)", partial(another_order_of_columns, proof, "parquet")),
        ("two files of a day that differ", partial(files_that_differ, proof)),
        ("a folder that is not mounted", partial(an_unmounted_folder, proof)),
        ("formula, HTML and newline in quarantine", partial(injected_rows_set_aside, proof)),
        ("formula, HTML and newline in Data Docs", partial(injected_rows_in_data_docs, proof)),
    ]
