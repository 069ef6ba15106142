"""The proof of the proof: each guard is switched off in a server of its own, and the case it stands for has to fail.

A case that fails for another reason than a guarantee that did not hold (`Unheld`) has noticed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from signal import SIGKILL
from unittest.mock import patch

from include.embedded.stack import envoy
from include.release.targets.local import envoy_routes
from tests.proofs import serving_operation as operation
from tests.proofs import serving_overload as overload
from tests.proofs import serving_processes as processes
from tests.proofs import serving_requests as requests
from tests.proofs import serving_trust as trust
from tests.proofs.data_disks import may_mount
from tests.proofs.outcomes import Named, Unheld, must
from tests.proofs.serving_world import CANARY, MIB, Proof, head

Case = Callable[[Proof], None]


def noticed(proof: Proof, guard: str, case: Case) -> None:
    with proof.mutant(guard) as without:
        try:
            case(without)
        except Unheld as error:
            return tell(proof, guard, error)
    raise AssertionError(f"nobody noticed that {guard} was off")


def tell(proof: Proof, guard: str, error: Unheld) -> None:
    """What was seen without the guard, so that a reader can judge whether that is what the guard prevents."""
    proof.figures["guards_noticed"] = proof.figures.get("guards_noticed", 0) + 1
    proof.console.print(f"     without {guard}: {str(error)[:110]}", markup=False)


def body_of(name: str) -> Case:
    [found] = [each for each in (*requests.CELLS, *requests.WHOLES) if each.name == name]
    return lambda proof: requests.a_bad_body(proof, found)


def leaking(proof: Proof) -> None:
    """Something is sent, and afterwards the logs are searched."""
    requests.a_bad_body(proof, requests.Refused("no JSON", f"{CANARY}=1".encode(), 400, None, "not JSON"))
    trust.nothing_leaked(proof)


def threshold(proof: Proof) -> None:
    trust.changed_after_the_release(
        proof, "compiled", trust.edit_json("artifact.json", threshold=0.9), "has the digest"
    )


def evil_module(proof: Proof) -> None:
    trust.blessed_and_malicious(proof, "generic", trust.a_module_of_its_own, "evil_module.Evil")


def other_model(proof: Proof) -> None:
    trust.blessed_and_malicious(proof, "compiled", trust.another_threshold, "golden rows")


def unblessed(proof: Proof) -> None:
    trust.no_blessing(proof, "names no blessing", blessing=None)


def unknown_key(proof: Proof) -> None:
    [(_, case)] = [named for named in trust.of_blessings(proof) if "unknown key" in named[0]]
    case()


def path_for_a_version(proof: Proof) -> None:
    trust.a_slot_file(proof, {"version": "../1"})


GUARDS: dict[str, Case] = {
    "row_check": body_of("1e400"),
    "duplicate_keys": body_of("a key given twice"),
    "body_limit": lambda proof: requests.too_large(proof, 10 * MIB),
    "compressed_bodies": requests.a_gzip_bomb,
    "digest": threshold,
    "allowed_types": evil_module,
    "golden_rows": other_model,
    "blessing": unblessed,
    "signature": unknown_key,
    "slot_file": path_for_a_version,
    "symbolic_links": lambda proof: trust.an_artifact_elsewhere(proof, True),
    "request_ids": trust.forged_ids,
    "loopback": trust.bound_to_loopback,
    "silence": leaking,
    "admin_token": operation.admin_needs_its_token,
    "client_tokens": operation.every_route_has_its_guard,
    "rate_limit": operation.rate_limited,
    "swap": operation.reload_under_load,
    "old_one": operation.reload_of_a_bad_one,
    "last_words": operation.log_outlives_sigterm,
    "drain": processes.terminated_in_flight,
    "queue_bound": overload.overloaded,
    "deadline": overload.too_slow,
    "breaker": overload.breaker_opens_and_closes,
    "fallback": overload.rule_in_its_place,
    "isolation": lambda proof: overload.rows_that_break_the_model(proof, "generic"),
}


@contextmanager
def stack_without(proof: Proof) -> Iterator[processes.Behind]:
    """A stack whose proxy waits for slow clients for ever, and asks nobody else when a slot dies."""
    never = {"retry_on": "", "num_retries": 0}
    with (
        patch.dict(envoy.REQUEST_TIMEOUTS, clear=True),
        patch.object(envoy_routes, "RETRY_ON_STANDBY", never),
        processes.behind_the_proxy(proof.new_place("stack")) as behind,
    ):
        yield behind


def of_the_stack(proof: Proof) -> None:
    """Two guards of the proxy, in one stack that lacks both."""
    cases = {
        "slow_clients": lambda behind: processes.slowloris(proof, behind, head()[:-2], b"x"),
        "retry_on_standby": lambda behind: processes.with_a_standby(proof, behind, SIGKILL),
    }
    missing = set(cases)
    with stack_without(proof) as behind:
        for guard, case in cases.items():
            try:
                case(behind)
            except Unheld as error:
                tell(proof, guard, error)
                missing.discard(guard)
    must(not missing, f"nobody noticed that {missing} were off")


def of_guards(proof: Proof) -> list[Named]:
    found: list[Named] = [
        (f"guard {name} off: its case fails", partial(noticed, proof, name, case)) for name, case in GUARDS.items()
    ]
    if may_mount(proof.home):
        full = partial(operation.log_on_a_full_disk, kib=128)
        found.append(("guard log_bound off: its case fails", partial(noticed, proof, "log_bound", full)))
    return [*found, ("guards of the proxy off: their cases fail", partial(of_the_stack, proof))]
