"""`make prove-serving`: what the model server promises when requests, models, disks and processes go wrong.

Real processes on real ports, killed by real signals: single servers, and a stack of a proxy and two slots under its
process manager. Each case is named by what happens and what is guaranteed. Afterwards the proof is proved: each guard
is switched off in a server of its own, and its case has to fail. The last line is JSON; exit 0 if and only if all held
and every missing guard was noticed.

    python -m tests.proofs.prove_serving [word of a case's name ...]
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

from tests.proofs.outcomes import Named
from tests.proofs.serving_guards import of_guards
from tests.proofs.serving_operation import of_operation
from tests.proofs.serving_overload import of_overload
from tests.proofs.serving_processes import Behind, behind_the_proxy, of_processes
from tests.proofs.serving_requests import of_requests
from tests.proofs.serving_trust import nothing_leaked, of_blessings, of_trust
from tests.proofs.serving_world import Proof


def stories(proof: Proof) -> list[Named]:
    @cache
    def behind() -> Behind:
        return proof.running.enter_context(behind_the_proxy(proof.home))

    return [
        *of_requests(proof),
        *of_trust(proof),
        *of_blessings(proof),
        *of_operation(proof),
        *of_overload(proof),
        *of_processes(proof, behind),
    ]


def main(words: list[str]) -> int:
    began = time.monotonic()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evergreen-proof-")))
        proof = Proof(home=home)
        stack.enter_context(proof.running)
        proof.prepare()
        last: Named = ("33 secrets and sent values: in no log and no process list", partial(nothing_leaked, proof))
        whole = [*stories(proof), last, *of_guards(proof)]
        proof.run([named for named in whole if not words or any(word in named[0] for word in words)], workers=1)
    return proof.end(time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
