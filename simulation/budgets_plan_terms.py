"""A study's mechanisms at one federation: the experiment of each, whom it protects, and from whom."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

from pydantic import ValidationError

from configs import Experiment, InputError, Study
from configs.experiment import Budget
from configs.sections import PRICED, TWINS, Mechanism
from simulation.study import sentence
from simulation.study_terms import training_under

# Any hospital: sizes decide, names do not, and the experiment needs one.
SOMEBODY = "one hospital"


@final
@dataclass(frozen=True)
class Setting:
    """One mechanism at one budget.

    Attributes:
        mechanism: its name.
        budget: epsilon, 'none' without privacy or where the mechanism has no epsilon; None where the study gives the
            noise and not the epsilon.
    """

    mechanism: Mechanism
    budget: Budget | None


@final
@dataclass(frozen=True)
class Protection:
    """Whom a mechanism protects and from whom, in words.

    Attributes:
        protects: image, lesion, scan or hospital; None where it protects nobody.
        against: who learns no more than epsilon allows, and who does.
    """

    protects: str | None
    against: str


def settings_of(study: Study) -> Iterator[Setting]:
    """Yield a study's settings, seeds and hospitals left out: without privacy first, then each mechanism's budgets.

    Raises:
        InputError: if a mechanism needs a budget and the study names none.
    """
    axes, base = study.axes, study.experiment
    mechanisms = axes.mechanisms or (base.privacy.mechanism,)
    numbers: list[Budget] = [b for b in axes.budgets if b != "none"]
    if "none" in axes.budgets or "none" in mechanisms:
        yield Setting("none", "none")
    given = base.privacy.noise_multiplier is not None
    for mechanism in mechanisms:
        if mechanism == "none":
            continue
        if mechanism not in PRICED:
            yield Setting(mechanism, "none")
            continue
        bare = "none" in axes.budgets and mechanism in TWINS
        if bare:
            yield Setting(mechanism, "none")
        own: list[Budget | None] = [base.privacy.epsilon] if base.privacy.epsilon is not None else [None] * given
        own = [] if bare else own
        if not numbers and not own and not bare:
            raise InputError(f"study.budgets: mechanism '{mechanism}' needs at least one budget.")
        for budget in numbers or own:
            yield Setting(mechanism, budget)


def at(base: Experiment, setting: Setting, units: Mapping[str, int], noise: float | None = None) -> Experiment:
    """Return the experiment of a setting for these hospitals, as a study runs it, without an adversary.

    Args:
        base: the study's experiment.
        setting: mechanism and budget.
        units: of every hospital of the federation.
        noise: noise multiplier for a setting without a budget; None: the base's.

    Raises:
        InputError: if the mechanism cannot be with these settings; it names the setting.
    """
    mechanism, budget = setting.mechanism, setting.budget
    given = noise if noise is not None else base.privacy.noise_multiplier
    changes: dict[str, dict[str, object]] = {
        "privacy": {
            "mechanism": mechanism,
            "epsilon": budget if mechanism in PRICED else None,
            "noise_multiplier": given if budget is None or mechanism == "noise_only" else None,
        },
        "training": training_under(base, mechanism, lambda: units),
        # The sizes are known: how they came about does not matter to a plan.
        "hospitals": {
            "partition": "iid",
            "count": len(units),
            "only": SOMEBODY if mechanism == "alone" else None,
        },
        "adversary": {"placement": "none", "seat": None, "colluders": 0, "rounds": None},
    }
    try:
        return base.updated(**changes)
    except ValidationError as error:
        raise InputError(sentence(error)) from error


def protection(experiment: Experiment) -> Protection:
    """Return whom an experiment's mechanism protects and from whom; `colluders` of a distributed one included."""
    settings = experiment.privacy
    if settings.mechanism == "central":
        return Protection("hospital", "whoever receives the models, other hospitals too; not the server")
    if not settings.claims:
        return Protection(None, "nobody")
    few = settings.colluders
    others = {0: "not other hospitals", 1: "each other hospital by itself"}.get(few, f"up to {few} hospitals with it")
    against: Mapping[str, str] = {
        "pooled": "whoever sees the models; not who holds the pooled data",
        "local": "the server, other hospitals and the public",
        "distributed": f"the server, the public and {others}" if few else f"the server and the public; {others}",
        "alone": "whoever sees its models; nothing else leaves the hospital",
    }
    return Protection(experiment.unit, against[settings.mechanism])
