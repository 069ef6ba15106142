#!/usr/bin/env bash
# Great Expectations' Data Docs of a new day remove the pages of the days before.
#
# Why it matters: a pipeline that validates a day in a process of its own, with an ephemeral context and a site on a disk,
# as every daily job does, keeps exactly one page: that of the newest day. The evidence of the others is gone.
#
# Guess, written before the first run: UpdateDataDocsAction adds the page of the new result to the site, and leaves alone
# what it does not know; only the index forgets the older days, since it is made from the context's own results.
#
# Seen (2026-12-01, great-expectations 1.24.1, Python 3.11, Linux x86-64): the guess was wrong. The site is emptied before
# the new page is written: whatever the context has no result of is removed, in silence.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3.11}" -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check great-expectations==1.24.1 'marshmallow<4' \
    pandas==2.3.3

cat >"$work/expected" <<'TEXT'
great-expectations 1.24.1
after 2026-08-01: pages of 2026-08-01
after 2026-08-02: pages of 2026-08-02
after 2026-08-03: pages of 2026-08-03
TEXT
cd "$work"
cat >day.py <<'PYTHON'
import sys
from pathlib import Path

import great_expectations as gx
import pandas as pd

day = sys.argv[1]
context = gx.get_context(mode="ephemeral")
for other in list(context.list_data_docs_sites()):
    context.delete_data_docs_site(other)
store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(Path("site").resolve())}
context.add_data_docs_site("pages", {"class_name": "SiteBuilder", "store_backend": store})
asset = context.data_sources.add_pandas("rows").add_dataframe_asset(day)
batch = asset.add_batch_definition_whole_dataframe("all")
suite = context.suites.add(gx.ExpectationSuite("contract", [gx.expectations.ExpectColumnToExist(column="x")]))
definition = context.validation_definitions.add(gx.ValidationDefinition(name="contract", data=batch, suite=suite))
action = gx.checkpoint.actions.UpdateDataDocsAction(name="page", site_names=["pages"])
checkpoint = context.checkpoints.add(gx.Checkpoint(name="contract", validation_definitions=[definition], actions=[action]))
moment = gx.RunIdentifier(run_name=day, run_time=f"{day}T00:00:00+00:00")
checkpoint.run(batch_parameters={"dataframe": pd.DataFrame({"x": [1]})}, run_id=moment)
pages = sorted(path.parts[3] for path in Path("site").glob("validations/contract/*/*/*.html"))
print(f"after {day}: pages of {', '.join(pages)}")
PYTHON
{
    "$work/env/bin/python" -c 'import great_expectations as gx; print("great-expectations", gx.__version__)'
    for day in 2026-08-01 2026-08-02 2026-08-03; do
        GX_ANALYTICS_ENABLED=false "$work/env/bin/python" -W ignore day.py "$day" 2>/dev/null | grep '^after'
    done
} >"$work/seen"
cat "$work/seen"
diff "$work/expected" "$work/seen"
