"""A study's runs: mechanisms x budgets x seeds, the same data and the same number of examples in each."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

from pydantic import ValidationError

import tasks
from clients.planning import plans
from configs import Experiment, InputError, Study
from configs.experiment import Budget
from configs.sections import PRICED, TWINS, Mechanism
from simulation.study_terms import adversary_under, training_under
from tasks.base import Splits
from tasks.dealing import deal_experiment


@final
@dataclass(frozen=True)
class Cell:
    """One run of a study.

    Attributes:
        name: of its folder; no two cells of a study share one.
        mechanism, budget, seed: where it stands in the study; budget `none` is without an epsilon.
        experiment: as it is run.
        hospital: the one that trains under `alone`; None elsewhere.
        noise_of: under `noise_only`, the budget of the `local` cell whose noise it takes; None elsewhere, and where
            the experiment names its own noise.
    """

    name: str
    mechanism: Mechanism
    budget: Budget
    seed: int
    experiment: Experiment
    hospital: str | None = None
    noise_of: float | None = None


@final
@dataclass(frozen=True)
class Refused:
    """A mechanism at a budget that cannot be, and why, in a sentence."""

    mechanism: Mechanism
    budget: Budget
    why: str


@final
@dataclass(frozen=True)
class Federation:
    """How the data of one seed are dealt, as far as a study needs to know.

    Attributes:
        units, records: of each hospital.
        fingerprint: of the dataset.
    """

    units: Mapping[str, int]
    records: Mapping[str, int]
    fingerprint: str


@final
class Federations:
    """The federation of each seed, dealt when it is first asked for, of data that are loaded once."""

    def __init__(self, base: Experiment) -> None:
        self._base = base
        self._known: dict[int, Federation] = {}

    @functools.cached_property
    def splits(self) -> Splits:
        """The parts of the dataset, the same for every seed and mechanism."""
        return tasks.get(self._base.task).load()

    def of(self, seed: int) -> Federation:
        """Return the federation of a seed.

        Raises:
            InputError: if the data cannot be read or dealt.
        """
        if seed not in self._known:
            self._known[seed] = _federation(_without_mechanism(self._base).with_seed(seed), self.splits)
        return self._known[seed]


def cells(study: Study) -> list[Cell]:
    """Return the study's runs: a mechanism without an epsilon has one cell per seed, not one per budget.

    Budget `none` stands for training without privacy: the federation's (mechanism `none`), and that of its twins.

    Raises:
        InputError: if a mechanism needs a budget and the study names none, or a cell's settings are refused.
    """
    found, refused = draft(study, Federations(study.experiment))
    if refused:
        raise InputError(refused[0].why)
    return found


def draft(study: Study, federations: Federations) -> tuple[list[Cell], list[Refused]]:
    """Return the study's runs, and which of them their settings forbid; nothing but the deal is looked at.

    Raises:
        InputError: if a mechanism needs a budget and the study names none, or the data cannot be dealt.
    """
    axes, base = study.axes, study.experiment
    mechanisms = axes.mechanisms or (base.privacy.mechanism,)
    found: dict[str, Cell] = {}
    refused: dict[tuple[Mechanism, Budget], Refused] = {}
    for seed in axes.seeds or (base.seed,):
        for mechanism, budget in _pairs(mechanisms, axes.budgets, base):
            try:
                own = _cells_of(study, mechanism, budget, seed, federations)
            except (ValidationError, InputError) as error:
                why = sentence(error) if isinstance(error, ValidationError) else str(error)
                refused.setdefault((mechanism, budget), Refused(mechanism, budget, why))
                continue
            for cell in own:
                found.setdefault(cell.name, cell)
    kept = [cell for cell in found.values() if (cell.mechanism, cell.budget) not in refused]
    return kept, list(refused.values())


def _pairs(
    mechanisms: tuple[Mechanism, ...], budgets: tuple[Budget, ...], base: Experiment
) -> Iterator[tuple[Mechanism, Budget]]:
    if "none" in budgets:
        yield "none", "none"
    for mechanism in mechanisms:
        if mechanism not in PRICED:
            yield mechanism, "none"
            continue
        if mechanism in TWINS and "none" in budgets:
            yield mechanism, "none"
        numbers: list[Budget] = [b for b in budgets if b != "none"]
        own = base.privacy
        if not numbers and own.budget is not None:
            numbers = [own.budget]
        if not numbers and own.noise_multiplier is None and mechanism not in TWINS:
            raise InputError(f"study.budgets: mechanism '{mechanism}' needs at least one budget.")
        if not numbers and own.noise_multiplier is not None and "none" in budgets:
            raise InputError(
                f"study.budgets: with privacy.noise_multiplier and no budget but none, '{mechanism}' would stand "
                f"beside runs without privacy as if it were one; name budgets, or leave budgets empty."
            )
        if not numbers and not (mechanism in TWINS and "none" in budgets):
            yield mechanism, "none"  # with the experiment's own noise multiplier; a twin without one: no privacy
        for budget in numbers:
            yield mechanism, budget


def _cells_of(
    study: Study, mechanism: Mechanism, budget: Budget, seed: int, federations: Federations
) -> Iterator[Cell]:
    """Return the cells of one mechanism, budget and seed; several where hospitals train alone.

    Raises:
        ValidationError: if the settings forbid it.
    """
    base = study.experiment.with_seed(seed)
    privacy: dict[str, object] = {"mechanism": mechanism, "epsilon": None, "noise_multiplier": None}
    noise_of = None
    twin_without = mechanism in TWINS and "none" in study.axes.budgets
    own_noise = budget == "none" and base.privacy.noise_multiplier is not None and not twin_without
    if mechanism == "noise_only":
        privacy["noise_multiplier"], noise_of = _borrowed_noise(study, federations, seed)
    elif mechanism in PRICED and own_noise:
        privacy["noise_multiplier"] = base.privacy.noise_multiplier
    elif mechanism in PRICED:
        privacy["epsilon"] = budget

    def made(only: str | None) -> Experiment:
        return base.updated(
            hospitals={"only": only},
            training=training_under(base, mechanism, lambda: federations.of(seed).units),
            privacy=privacy,
            adversary=adversary_under(base, mechanism),
        )

    stem = f"{mechanism}-seed-{seed}"
    if budget != "none":
        stem = f"{mechanism}-eps-{written(float(budget))}-seed-{seed}"
    elif mechanism in TWINS and not own_noise:
        stem = f"{mechanism}-none-seed-{seed}"
    if mechanism != "alone":
        return iter([Cell(stem, mechanism, budget, seed, made(None), noise_of=noise_of)])
    names = folder_names(federations.of(seed).units)
    return iter([Cell(f"{stem}-{names[h]}", mechanism, budget, seed, made(h), h) for h in names])


def _borrowed_noise(study: Study, federations: Federations, seed: int) -> tuple[float, float | None]:
    """Return the noise of `noise_only`, and the budget whose `local` cell it is taken from.

    Where hospitals add unlike noise there, the largest: nobody adds less than in that cell.
    """
    base, numbers = study.experiment, [float(b) for b in study.axes.budgets if b != "none"]
    named = study.axes.noise_of
    if named is None and base.privacy.mechanism == "noise_only" and base.privacy.noise_multiplier is not None:
        return base.privacy.noise_multiplier, None
    if named is None and not numbers:
        raise InputError(
            "study.noise_of: mechanism 'noise_only' takes the noise of a budget, and the study names none; set it."
        )
    budget = named if named is not None else min(numbers)
    clipped: dict[str, object] = {"mechanism": "local", "epsilon": budget, "noise_multiplier": None}
    local = base.with_seed(seed).updated(hospitals={"only": None}, privacy=clipped)
    federation = federations.of(seed)
    found = plans(local, federation.units, federation.records)
    return max(plan.noise_multiplier for plan in found.values()), budget


def _without_mechanism(base: Experiment) -> Experiment:
    """Return the federation that all mechanisms share, with nobody in an adversary's seat."""
    privacy: dict[str, object] = {"mechanism": "none", "epsilon": None, "noise_multiplier": None}
    adversary: dict[str, object] = {"placement": "none", "seat": None, "colluders": 0}
    return base.updated(hospitals={"only": None}, privacy=privacy, adversary=adversary)


def _federation(experiment: Experiment, splits: Splits) -> Federation:
    training, _ = splits.parts(experiment.task.holdout)
    dealt = deal_experiment(experiment, training).hospitals
    return Federation(
        units={h.name: len(h.records.unit_rows(experiment.unit)) for h in dealt},
        records={h.name: len(h.records) for h in dealt},
        fingerprint=splits.fingerprint,
    )


def written(budget: float) -> str:
    """Write a budget for a folder's name: short, and never two budgets alike."""
    short = f"{budget:g}"
    return short if float(short) == budget else repr(budget)


def folder_names(hospitals: Mapping[str, int]) -> dict[str, str]:
    """Return a name for each hospital that fits into a folder's, also where case does not count."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in hospitals:
        fit = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:60].strip("._") or "hospital"
        unlike, number = fit, 2
        while unlike.casefold() in taken:
            unlike, number = f"{fit}_{number}", number + 1
        taken.add(unlike.casefold())
        found[name] = unlike
    return found


def sentence(error: ValidationError) -> str:
    """Return the first problem of settings that are not valid, without pydantic's own words."""
    first = error.errors(include_url=False)[0]
    return f"{first['ctx']['error'] if 'ctx' in first and 'error' in first['ctx'] else first['msg']}."
