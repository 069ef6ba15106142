"""The proof of the proof: each guard is switched off in the tasks of a case, and the case has to fail.

A case that fails for another reason than a guarantee that did not hold (`Unheld`) has noticed nothing. Afterwards the
world is put right again by an ordinary release, with every guard in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tests.proofs.outcomes import Named, Outcomes, Unheld
from tests.proofs.release_faults import Faults
from tests.proofs.release_mutants import MUTANTS
from tests.proofs.release_world import DEMANDING, GLOOMY, GOOD, World


def cases(faults: Faults) -> dict[str, Callable[[], None]]:
    return {
        "fence": partial(faults.held_up, 4),
        "lock": partial(faults.wishes_at_once, 3),
        "verification": partial(faults.never_ready, DEMANDING),
        "standby": faults.live_with_standby,
        "retries": faults.live_with_standby,
        "confirmation": faults.proxy_away,
        "soak": faults.dies_after_its_switch,
        "analysis": faults.bad_canary,
        "local copies": faults.rollback_without_mlflow,
        "patience": faults.keeps_the_lock,
    }


def noticed(world: World, outcomes: Outcomes, guard: str, case: Callable[[], None]) -> None:
    world.without = guard
    try:
        case()
    except Unheld as error:
        outcomes.figures["guards_noticed"] = outcomes.figures.get("guards_noticed", 0) + 1
        outcomes.console.print(f"     without {guard}: {' '.join(str(error).split())[:110]}", markup=False)
        return
    finally:
        world.without = ""
        put_right(world)
    raise AssertionError(f"nobody noticed that {guard} was off")


def put_right(world: World) -> None:
    """A good version is live, released with every guard in its place; the rollback ends whatever was left under way."""
    world.serving.start_all()
    world.roll_back(GOOD)
    world.deploy(GLOOMY)
    world.deploy(GOOD)
    world.steady()


def of_guards(world: World, outcomes: Outcomes, quick: bool) -> list[Named]:
    found = cases(Faults(world, outcomes))
    assert found.keys() == MUTANTS.keys()
    return [
        (f"guard {guard} off: its case fails", partial(noticed, world, outcomes, guard, case))
        for guard, case in found.items()
    ]
