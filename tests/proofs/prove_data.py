"""`make prove-data`: every bad input there is a promise about, through the real ingest job against real servers.

Each case has a pipeline and a store of its own, with the day before already published. The job runs as an operator
would start it, as a process. After a refusal: the exit code says whether to try again, one sentence names the place and
the fix, nothing was published (no snapshot, no pointer, no word an event could be made of), nothing temporary is left,
and the next good delivery is published under the id it always has. Kills are enumerated: before each write Python
makes, and by the clock, since native code writes too. The last line is JSON; exit 0 if and only if all held.

    python -m tests.proofs.prove_data [word of a case's name ...]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests import counterparts
from tests.counterparts import Database, S3Server
from tests.proofs import bad_input
from tests.proofs.data_buckets import of_buckets, of_stores
from tests.proofs.data_crashes import of_kills, of_publishers
from tests.proofs.data_days import bad_delivery, of_days
from tests.proofs.data_disks import of_disks
from tests.proofs.data_proof import Proof
from tests.proofs.data_tables import a_server_that_is_down, of_tables
from tests.proofs.outcomes import Named


def stories(proof: Proof, s3: S3Server, database: Database) -> list[Named]:
    """The whole list but for what stops the database all others use."""
    found: list[Named] = [(case.name, partial(bad_delivery, proof, case)) for case in bad_input.CASES]
    found += of_days(proof) + of_publishers(proof) + of_disks(proof)
    return found + of_buckets(proof, s3) + of_stores(proof, s3) + of_tables(proof, database) + of_kills(proof)


def main(words: list[str]) -> int:
    began = time.monotonic()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evergreen-proof-")))
        proof = Proof(home=home)
        proof.prepare()
        proof.console.print(f"one undisturbed run takes {proof.seconds:.1f} s", markup=False)
        s3, database = stack.enter_context(counterparts.s3_server()), stack.enter_context(counterparts.database())
        os.environ.update(s3.environment())  # to look into its buckets
        proof.run(
            [named for named in stories(proof, s3, database) if not words or any(word in named[0] for word in words)]
        )
        if not words or "down" in words:
            proof.run([("PostgreSQL: the server is down", partial(a_server_that_is_down, proof, database))], workers=1)
    return proof.end(time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
