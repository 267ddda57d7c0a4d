"""Error and time of accountants on one grid: fedward, opacus (rdp, prv, gdp) and dp-accounting (rdp, pld).

    python benchmarks/accounting.py [--json] [--all] [--limit 5]

Truth is tests/privacy/reference.csv (see benchmarks/reference.py), every fifth row unless ``--all``. All accountants
run with default settings, each answer in a process of its own that is killed at the limit. `error` is relative. An
answer fails where there is none (too slow, an exception, not finite), where it is loose (above the truth by more than
1e-2), or where it UNDERSTATES (below it by more than 1e-4: not a bound).
"""

import argparse
import contextlib
import csv
import json
import math
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, final

REFERENCE = Path(__file__).parent.parent / "tests" / "privacy" / "reference.csv"
LOOSE, UNDERSTATED = 1e-2, -1e-4


@final
@dataclass(frozen=True, slots=True)
class Run:
    """What is priced, and its true epsilon."""

    noise_multiplier: float
    sample_rate: float
    steps: int
    delta: float
    truth: float


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What one accountant said about one run; ``error`` is relative, ``failed`` empty where the answer is good."""

    run: Run
    accountant: str
    epsilon: float | None
    error: float | None
    seconds: float
    failed: str


Accountant = Callable[[Run], float]


def fedward(run: Run) -> float:
    """Return fedward's upper bound."""
    import privacy

    found = privacy.epsilon(
        noise_multiplier=run.noise_multiplier, sample_rate=run.sample_rate, steps=run.steps, delta=run.delta
    )
    return found.upper


def opacus(kind: str) -> Accountant:
    """Return opacus' accountant of a kind: rdp, prv or gdp."""

    def price(run: Run) -> float:
        from opacus.accountants import create_accountant

        accountant: Any = create_accountant(kind)
        accountant.history = [(run.noise_multiplier, run.sample_rate, run.steps)]
        return float(accountant.get_epsilon(run.delta))

    return price


def dp_accounting(kind: str) -> Accountant:
    """Return dp-accounting's accountant of a kind: rdp or pld."""

    def price(run: Run) -> float:
        from dp_accounting import dp_event
        from dp_accounting.pld import PLDAccountant
        from dp_accounting.rdp import RdpAccountant

        accountant: Any = RdpAccountant() if kind == "rdp" else PLDAccountant()
        step: Any = dp_event.GaussianDpEvent(run.noise_multiplier)
        if run.sample_rate < 1:
            step = dp_event.PoissonSampledDpEvent(run.sample_rate, step)
        accountant.compose(dp_event.SelfComposedDpEvent(step, run.steps))
        return float(accountant.get_epsilon(run.delta))

    return price


ACCOUNTANTS: dict[str, Accountant] = {
    "fedward": fedward,
    "opacus rdp": opacus("rdp"),
    "opacus prv": opacus("prv"),
    "opacus gdp": opacus("gdp"),
    "dp-accounting rdp": dp_accounting("rdp"),
    "dp-accounting pld": dp_accounting("pld"),
}


@contextlib.contextmanager
def quiet() -> Generator[None]:
    """Silence warnings, absl's log, and what native code prints."""
    import numpy as np
    from absl import logging

    logging.set_verbosity(logging.FATAL)
    with open(os.devnull, "w") as sink, warnings.catch_warnings(), np.errstate(all="ignore"):  # noqa: PTH123
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            yield


def _serve(pipe: Connection, name: str, run: Run) -> None:
    with quiet():
        start = time.perf_counter()
        try:
            pipe.send((ACCOUNTANTS[name](run), time.perf_counter() - start, ""))
        except Exception as error:  # whatever a competitor raises is its answer
            pipe.send((math.nan, time.perf_counter() - start, type(error).__name__))


def ask(name: str, run: Run, limit: float) -> Answer:
    """Ask an accountant in a process of its own, which inherits the imports and is killed at the limit."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    worker = context.Process(target=_serve, args=(there, name, run), daemon=True)
    worker.start()
    there.close()
    try:
        found = here.recv() if here.poll(limit) else (math.nan, limit, "too slow")
    except EOFError:
        found = (math.nan, 0.0, "died")
    worker.kill()
    worker.join()
    value, seconds, problem = found
    error = value / run.truth - 1.0 if math.isfinite(value) else None
    return Answer(run, name, value if error is not None else None, error, seconds, verdict(error, problem))


def verdict(error: float | None, problem: str) -> str:
    """Return why an answer counts as failed, or nothing."""
    if error is None:
        return problem or "not finite"
    if error < UNDERSTATED:
        return "UNDERSTATES"
    return "loose" if error > LOOSE else ""


def grid(everything: bool) -> list[Run]:
    """Return the runs of the reference file, or every fifth."""
    with REFERENCE.open() as file:
        lines = list(csv.DictReader(line for line in file if not line.startswith("#")))
    runs = [
        Run(
            float(x["noise_multiplier"]),
            float(x["sample_rate"]),
            int(x["steps"]),
            float(x["delta"]),
            float(x["epsilon"]),
        )
        for x in lines
    ]
    return runs if everything else runs[::5]


def warm_up() -> None:
    """Import every library and run it once, so that neither is timed."""
    with quiet():
        for price in ACCOUNTANTS.values():
            price(Run(2.0, 0.5, 2, 1e-5, 1.0))


def line(answer: Answer) -> str:
    """Return one answer as a line of the table."""
    value = "-" if answer.epsilon is None else f"{answer.epsilon:.7g}"
    error = "-" if answer.error is None else f"{answer.error:+.1e}"
    return f"  {answer.accountant:<18} {value:>14} {error:>9} {answer.seconds:8.3f} s  {answer.failed}"


def summary(answers: list[Answer]) -> Iterator[str]:
    """Yield one line per accountant: how many runs it priced well, and how it failed on the others."""
    yield " " * 18 + "  good  loose  under  none     least      most  median s    max s"
    for name in ACCOUNTANTS:
        own = [answer for answer in answers if answer.accountant == name]
        errors = [answer.error for answer in own if answer.error is not None] or [math.nan]
        failed = [answer.failed for answer in own]
        counts = [failed.count(""), failed.count("loose"), failed.count("UNDERSTATES")]
        seconds = [answer.seconds for answer in own]
        yield (
            f"{name:<18} {counts[0]:>5} {counts[1]:>6} {counts[2]:>6} {len(own) - sum(counts):>5} "
            f"{min(errors):>+9.1e} {max(errors):>+9.1e} {statistics.median(seconds):>9.3f} {max(seconds):>8.3f}"
        )


def main() -> None:
    """Print every accountant's answer to every run, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--all", action="store_true", help="all 105 rows instead of 21")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds for one answer")
    options = parser.parse_args()
    warm_up()
    answers: list[Answer] = []
    for run in grid(options.all):
        if not options.json:
            place = f"s={run.noise_multiplier:g} q={run.sample_rate:g} T={run.steps} delta={run.delta:g}"
            print(f"{place}: epsilon {run.truth:.10g}", flush=True)
        for name in ACCOUNTANTS:
            answers.append(ask(name, run, options.limit))
            if not options.json:
                print(line(answers[-1]), flush=True)
    if options.json:
        print(json.dumps([{**(row := asdict(answer)).pop("run"), **row} for answer in answers]))
        return
    print(*summary(answers), sep="\n")


if __name__ == "__main__":
    main()
