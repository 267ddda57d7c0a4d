"""Recompute tests/privacy/reference.csv: epsilon by two methods each, sharing no code with ``privacy``.

    python benchmarks/reference.py            ten rows, compared with the file: a minute
    python benchmarks/reference.py --write    all 105: ten minutes on two cores

Full participation and one step: closed form in 60 digits against a numerical integral. Tiny noise: the mixture over
numbers of participations from below in 50 digits, against the same plus a union bound from above by quadrature.
Elsewhere: an inversion integral of the moment generating function against the T-fold convolution of the loss on a grid
by FFT. A row is written where both agree to 1e-6. Adjacency is add/remove; the larger direction is the row's epsilon.
"""

import argparse
import csv
import itertools
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import final

from truth.closed import full_closed, full_integral, mixture_above, mixture_below, step_closed, step_integral
from truth.numeric import Loss, convolution, inversion
from truth.setting import Setting

AGREE = 1e-6  # largest relative difference of two methods
SMALL = 0.03  # below it the mixture serves, above it the two convolutions


@final
@dataclass(frozen=True, slots=True)
class Row:
    """A setting and its epsilon by two methods; ``difference`` is relative."""

    noise_multiplier: float
    sample_rate: float
    steps: int
    delta: float
    epsilon: float
    first: str
    first_epsilon: float
    second: str
    second_epsilon: float
    difference: float


FAMILIES = ((0.073, 1368), (0.0041, 12200), (0.00943, 53000), (0.2534, 300))  # HAM10000, RadImageNet, MSD, HAM paper
NOISES = (1e-6, 1e-4, 1e-2, 0.025, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 4.0, 11.0)
DELTAS = (1e-5, 8e-7, 1e-6, 1e-4, 1e-7, 1e-3)
FULL = (
    (1e-6, 10**6),
    (1e-6, 1),
    (1e-4, 300),
    (0.01, 1368),
    (0.1, 1),
    (0.3, 100),
    (1.0, 1),
    (1.0, 1368),
    (4.0, 100),
    (11.0, 10**6),
)
ONE = (
    (1e-6, 0.073),
    (1e-3, 0.9),
    (0.05, 0.25),
    (0.1, 0.01),
    (0.3, 0.073),
    (0.5, 0.0041),
    (1.0, 0.5),
    (2.0, 0.1),
    (4.0, 0.0041),
    (11.0, 0.9),
)
OTHERS = (
    (1e-6, 1e-5, 10**6),
    (1e-3, 1e-5, 10**6),
    (0.05, 1e-5, 10**6),
    (0.1, 1e-5, 10**6),
    (0.2, 1e-5, 10**6),
    (0.5, 1e-5, 10**6),
    (1.0, 1e-5, 10**6),
    (0.025, 1e-3, 10**6),
    (0.5, 0.01, 10**6),
    (2.0, 0.01, 10**6),
    (11.0, 0.01, 10**6),
    (11.0, 0.5, 10**6),
    (1.0, 1e-4, 10**5),
    (1.0, 0.02, 7),
    (0.6, 0.3, 6),
    (2.0, 0.5, 10),
    (0.08, 0.3, 20),
)


def settings() -> list[Setting]:
    """Return the 105 settings, deltas taken in turn."""
    runs = [(s, q, t) for (q, t), s in itertools.product(FAMILIES, NOISES)]
    runs += [(s, 1.0, t) for s, t in FULL] + [(s, q, 1) for s, q in ONE] + list(OTHERS)
    return [Setting(*run, delta) for run, delta in zip(runs, itertools.cycle(DELTAS), strict=False)]


def measure(run: Setting) -> Row:
    """Price a setting by its two methods. Raises ``ArithmeticError`` where they differ by more than 1e-6."""
    if run.sample_rate == 1.0:
        names, values = ("closed form", "integral"), (full_closed(run), full_integral(run))
    elif run.steps == 1:
        names, values = ("closed form", "integral"), (step_closed(run), step_integral(run))
    elif run.noise_multiplier < SMALL:
        names, values = ("mixture below", "mixture above"), (mixture_below(run), mixture_above(run))
    else:
        names, values = ("inversion", "convolution"), (inversion(Loss(run, 1)), convolution(Loss(run, 1)))
    difference = abs(values[0] / values[1] - 1.0) if values[1] > 0.0 else math.inf
    if difference > AGREE:
        raise ArithmeticError(f"{run}: {names[0]} {values[0]!r}, {names[1]} {values[1]!r}")
    if not adding_costs_less(run, values[0]):
        raise ArithmeticError(f"{run}: adding the record costs more than removing it")
    # Closed forms and mixtures are exact in their first method; two numerical answers are worth the same.
    value = values[0] if names[0] != "inversion" else 0.5 * sum(values)
    return Row(
        **asdict(run),
        epsilon=value,
        first=names[0],
        first_epsilon=values[0],
        second=names[1],
        second_epsilon=values[1],
        difference=difference,
    )


def adding_costs_less(run: Setting, removing: float) -> bool:
    """Whether the add direction costs at most ``removing``: by its largest loss, a Renyi bound, or a convolution."""
    if run.sample_rate == 1.0:
        return True  # the Gaussian is symmetric
    if -run.steps * math.log1p(-run.sample_rate) <= removing:
        return True
    adding = Loss(run, -1)
    return adding.best()[1] <= removing or convolution(adding) <= removing


def attempt(run: Setting) -> tuple[Row | str, float]:
    """Return the row, or why there is none, and the seconds it took."""
    start = time.perf_counter()
    try:
        return measure(run), time.perf_counter() - start
    except ArithmeticError as error:
        return str(error), time.perf_counter() - start


HEADER = """\
# Epsilon of DP-SGD (Poisson-subsampled Gaussian, add/remove adjacency) by two methods that share no code with
# privacy/, written by `python benchmarks/reference.py --write`. Every row's methods agree to 1e-6 (`difference`,
# relative). closed form: 60 digits; integral: quadrature of the hockey stick; mixture below/above: rigorous bounds
# over numbers of participations; inversion: contour integral of the moment generating function; convolution: FFT of
# the loss on a grid. `epsilon` is the first method's, or the mean of inversion and convolution.
"""


def write(path: Path, rows: list[Row]) -> None:
    """Write the rows as CSV behind a comment."""
    with path.open("w", newline="") as file:
        file.write(HEADER)
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def differs(path: Path, rows: list[Row]) -> list[str]:
    """Say which rows the file lacks, or has with an epsilon that differs by more than 1e-6."""
    with path.open() as file:
        known = {
            tuple(float(line[field.name]) for field in fields(Setting)): float(line["epsilon"])
            for line in csv.DictReader(line for line in file if not line.startswith("#"))
        }
    found = {tuple(float(getattr(row, field.name)) for field in fields(Setting)): row.epsilon for row in rows}
    return [f"{run}: {found[run]!r}" for run in found if abs(known.get(run, 0.0) / found[run] - 1.0) > AGREE]


def main() -> None:
    """Recompute rows, print how far the methods differ, and compare with the file or write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="compute all rows and write the file (many minutes)")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "tests" / "privacy" / "reference.csv"
    )
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    runs = settings() if options.write else settings()[13::11]
    rows: list[Row] = []
    with ProcessPoolExecutor(options.workers) as pool:
        for run, (found, seconds) in zip(runs, pool.map(attempt, runs), strict=True):
            if isinstance(found, str):
                print(f"no row: {found}", file=sys.stderr, flush=True)
                continue
            rows.append(found)
            place = f"s={run.noise_multiplier:<6g} q={run.sample_rate:<8g} T={run.steps:<8} delta={run.delta:<6g}"
            print(
                f"{place} {found.epsilon:<22.16g} {found.first}/{found.second} {found.difference:.1e} {seconds:.1f} s",
                flush=True,
            )
    print(f"{len(rows)} of {len(runs)} rows agree; largest difference {max(row.difference for row in rows):.1e}")
    if options.write:
        write(options.out, rows)
    elif wrong := differs(options.out, rows):
        sys.exit("not as in the file: " + "; ".join(wrong))


if __name__ == "__main__":
    main()
