"""The bound beside an attack on a sum: it holds for the hospital that released in one round of many."""

from collections.abc import Callable
from typing import Any

from configs import Experiment
from privacy import reconstruction_bound
from server.adversary.base import Observation, PublicTerms, Trace
from simulation.attack_images import bounds_of, quietest
from simulation.attacking import Case
from simulation.setup import prepare

Make = Callable[..., Experiment]
TERMS = PublicTerms(1.0, 1.0, 0.1, 1, 10.0, 0.0)


def test_a_hospital_that_released_once_is_not_taken_to_be_drawn_in_every_round(small: Make) -> None:
    training = {"rounds": 40, "cohort": 2, "quorum": 1 / 4, "batch_size": 20}
    setup = prepare(small(privacy={"mechanism": "local", "noise_multiplier": 2.0, "delta": 1e-3}, training=training))
    names = sorted(setup.plans)
    seen: list[Observation] = []
    for number in range(1, 41):
        inside = (names[0], names[1]) if number == 40 else (names[1], names[2])
        seen.append(Observation(number, "the sum", setup.task.spec, {}, {}, TERMS, inside))
    came = {name: [o.round for o in seen if name in o.members] for name in names[:3]}
    nothing: Any = None
    case = Case(setup, "aggregate", nothing, Trace.of(*seen), *([nothing] * 5), came)  # pyright: ignore
    bound = bounds_of(case, 19)["bound_worst_case"]
    assert bound is not None
    # Whoever knows that an image was drawn in the one round in which its hospital released does as well as this.
    reached = reconstruction_bound(
        noise_multiplier=quietest(case, names[0]), sample_rate=1.0, steps=1, prior=1 / 20, threat="worst_case"
    )
    assert bound >= reached
    assert bounds_of(Case(setup, "aggregate", nothing, Trace.of(*seen), *([nothing] * 5), {}), 19) == {
        "bound_worst_case": None,
        "bound_relaxed": None,
    }
