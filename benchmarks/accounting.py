"""Error and time of accountants on one grid: fedward, opacus (rdp, prv, gdp) and dp-accounting (rdp, pld).

    python benchmarks/accounting.py [--json] [--quick] [--limit 20]

The reference is the closed form in high precision where there is one (mpmath: one step, full participation, the
participation mixture at tiny noise), else a fine privacy loss distribution computed beforehand. `error` is relative;
`failed` says that no finite answer came within the time limit, that it is off by more than a tenth, or that it is
below the truth by more than 1e-4 (a bound that does not hold).
"""

import argparse
import json
import math
import multiprocessing
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection

DELTA = 1e-5
# noise multiplier, sample rate, steps, epsilon at delta 1e-5, where it is from
GRID: list[tuple[float, float, int, float | None, str]] = [
    (4.0, 1.0, 100, None, "analytic Gaussian"),
    (0.01, 1.0, 100, None, "analytic Gaussian"),
    (1.0, 0.0041, 1, None, "one step"),
    (0.05, 0.25, 1, None, "one step"),
    (1.0, 0.02, 7, 0.70130375, "loss distribution"),
    (1.0, 0.0284, 528, 4.15569232, "loss distribution"),
    (0.5, 0.0284, 528, 24.3005434, "loss distribution"),
    (5.0, 0.073, 1368, 2.21689840, "loss distribution"),
    (1e-2, 0.073, 1368, None, "mixture"),
    (1e-4, 0.2534, 300, None, "mixture"),
    (1e-3, 0.0041, 12200, None, "mixture"),
    (1e-6, 0.0284, 528, None, "mixture"),
]


def reference(s: float, q: float, t: int, kind: str) -> float:
    """Return epsilon by bisection of delta in 60 digits."""
    import mpmath as mp

    mp.mp.dps = 60
    noise, rate, target = mp.mpf(s), mp.mpf(q), mp.mpf(DELTA)
    half = 1 / (2 * noise**2)

    def gaussian(e, mean, deviation):
        z = (mean - e) / deviation
        return mp.ncdf(z) - mp.exp(e - mean + deviation**2 / 2) * mp.ncdf(z - deviation)

    if kind == "one step":

        def delta(e):
            inner = mp.log1p(mp.expm1(e) / rate)
            return rate * gaussian(inner, half, 1 / noise)
    elif kind == "analytic Gaussian":

        def delta(e):
            return gaussian(e, t * half, mp.sqrt(t) / noise)
    else:
        middle, reach = q * t, 9 * math.sqrt(q * t) + 30
        window = range(max(0, int(middle - reach)), min(t, int(middle + reach)))
        weights = [(k, mp.binomial(t, k) * rate**k * (1 - rate) ** (t - k)) for k in window if k]

        def delta(e):
            means = ((w, k * half + k * mp.log(rate) + (t - k) * mp.log(1 - rate), k) for k, w in weights)
            return mp.fsum(
                w * gaussian(e, mean, mp.sqrt(k) / noise) for w, mean, k in means if mean + 40 * mp.sqrt(k) / noise > e
            )

    low, high = mp.mpf(0), t * half + 40 * mp.sqrt(t) / noise
    for _ in range(100):
        centre = (low + high) / 2
        low, high = (centre, high) if delta(centre) > target else (low, centre)
    return float(high)


def fedward(s: float, q: float, t: int) -> float:
    """Return fedward's upper bound."""
    import privacy

    return privacy.epsilon(noise_multiplier=s, sample_rate=q, steps=t, delta=DELTA).upper


def opacus(kind: str) -> Callable[[float, float, int], float]:
    """Return opacus' accountant of a kind: rdp, prv or gdp."""

    def price(s: float, q: float, t: int) -> float:
        from opacus.accountants import create_accountant

        accountant = create_accountant(kind)
        accountant.history = [(s, q, t)]
        return float(accountant.get_epsilon(DELTA))

    return price


def dp_accounting(kind: str) -> Callable[[float, float, int], float]:
    """Return dp-accounting's accountant of a kind: rdp or pld, with its default settings."""

    def price(s: float, q: float, t: int) -> float:
        from dp_accounting import dp_event
        from dp_accounting.pld import PLDAccountant
        from dp_accounting.rdp import RdpAccountant

        accountant = RdpAccountant() if kind == "rdp" else PLDAccountant()
        step: dp_event.DpEvent = dp_event.GaussianDpEvent(s)
        if q < 1:
            step = dp_event.PoissonSampledDpEvent(q, step)
        accountant.compose(dp_event.SelfComposedDpEvent(step, t))
        return float(accountant.get_epsilon(DELTA))

    return price


ACCOUNTANTS: dict[str, Callable[[float, float, int], float]] = {
    "fedward": fedward,
    "opacus rdp": opacus("rdp"),
    "opacus prv": opacus("prv"),
    "opacus gdp": opacus("gdp"),
    "dp-accounting rdp": dp_accounting("rdp"),
    "dp-accounting pld": dp_accounting("pld"),
}


def _serve(pipe: Connection, name: str, arguments: tuple[float, float, int]) -> None:
    warnings.simplefilter("ignore")
    try:
        # Imports are not what is timed.
        import numpy as np

        np.seterr(all="ignore")
        ACCOUNTANTS[name](1.0, 0.5, 2)
        start = time.perf_counter()
        value = ACCOUNTANTS[name](*arguments)
        pipe.send((value, time.perf_counter() - start, ""))
    except Exception as error:
        pipe.send((math.nan, 0.0, type(error).__name__))


def ask(name: str, arguments: tuple[float, float, int], limit: float) -> tuple[float, float, str]:
    """Return (epsilon, seconds, what went wrong) from a process of its own."""
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.Process(target=_serve, args=(there, name, arguments))
    worker.start()
    found = here.recv() if here.poll(limit) else (math.nan, limit, "too slow")
    worker.kill()
    worker.join()
    return found


def verdict(error: float, problem: str) -> str:
    """Return why an answer counts as failed, or nothing."""
    if problem or math.isnan(error):
        return problem or "no answer"
    if error < -1e-4:
        return "too small"
    return "too large" if error > 0.1 else ""


def measure(limit: float, quick: bool) -> list[dict[str, object]]:
    """Return one row per setting and accountant."""
    rows: list[dict[str, object]] = []
    for s, q, t, known, kind in GRID[:: 3 if quick else 1]:
        truth = reference(s, q, t, kind) if known is None else known
        for name in ACCOUNTANTS:
            value, seconds, problem = ask(name, (s, q, t), limit)
            error = value / truth - 1
            finite = math.isfinite(value)
            rows.append(
                {
                    "noise_multiplier": s,
                    "sample_rate": q,
                    "steps": t,
                    "delta": DELTA,
                    "reference": truth,
                    "from": kind,
                    "accountant": name,
                    "epsilon": value if finite else None,
                    "error": error if finite else None,
                    "seconds": round(seconds, 4),
                    "failed": verdict(error if finite else math.nan, problem),
                }
            )
    return rows


def main() -> None:
    """Print one row per setting and accountant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON rows only")
    parser.add_argument("--quick", action="store_true", help="every third setting")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for one answer")
    options = parser.parse_args()
    rows = measure(options.limit, options.quick)
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        place = f"s={row['noise_multiplier']:<6g} q={row['sample_rate']:<6g} T={row['steps']:<5}"
        value = "-" if row["epsilon"] is None else f"{row['epsilon']:.7g}"
        error = "" if row["error"] is None else f"{row['error']:+.1e}"
        print(f"{place} {row['accountant']:<18} {value:>14} {error:>9} {row['seconds']:8.3f} s  {row['failed']}")


if __name__ == "__main__":
    main()
