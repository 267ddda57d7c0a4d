"""The numbers of a study's figures as tables."""

from collections.abc import Sequence

from simulation.report import phrases
from simulation.report.budgets_numbers import Figures, capital
from simulation.report.budgets_rows import Budgets, Setting, goal
from simulation.report.numbers import DASH, budget, interval, p_value, percent, significant
from simulation.report.tables import Table, cut


def utility_table(budgets: Budgets) -> Table:
    """Return utility by budget and mechanism."""
    names = [m for m in budgets.mechanisms if budgets.of(m)]
    numbers = sorted({s.budget for s in budgets.settings if s.budget is not None}, reverse=True)
    found = {(s.mechanism, s.budget): s.utility.short for s in budgets.settings}
    bare = tuple(found.get((m, None), DASH) for m in names)
    rows = [("without privacy", found.get(("none", None), DASH), *bare)]
    rows += [(f"ε = {budget(b)}", DASH, *(found.get((m, b), DASH) for m in names)) for b in numbers]
    for m in ("clip_only", "noise_only"):
        if (m, None) in found:
            rows.append((phrases.mechanism(m), found[m, None], *(DASH for _ in names)))
    return Table(
        f"{budgets.measure.label} on {budgets.heldout}, mean over seeds, with 95% intervals.",
        ("Budget", "Federated", *(capital(phrases.mechanism(m)) for m in names)),
        tuple(rows),
    )


def noise_table(budgets: Budgets) -> Table:
    """Return the noise on the mean by setting."""
    rows = [
        (s.label, noise(s), significant(s.row["noise_on_mean"])) for s in budgets.settings if s.row["noise_on_mean"]
    ]
    kept, note = cut(rows, "settings.csv")
    return Table(
        "Noise multiplier (in units of the clipping norm) and the standard deviation of the noise on the mean.",
        ("Setting", "Noise multiplier", "Noise on the mean"),
        kept,
        note,
    )


def risk_table(settings: Sequence[Setting]) -> Table:
    """Return every attack and goal of some settings, beside its null."""
    rows: list[tuple[str, ...]] = []
    for s in settings:
        for a in s.row["attacks"]:
            tested = a["above_null"] is not None
            rows.append(
                (
                    f"{s.label}: {a['attack']}, {goal(a)}",
                    f"{a['hits']:,} of {a['targets']:,} ({percent(a['rate'])})"
                    if tested
                    else f"not judged: {a['why']}",
                    interval((a["low"], a["high"])) if tested else DASH,
                    percent(a["null"]) if tested else DASH,
                    p_value(a["p_adjusted"]) if tested else DASH,
                    percent(a["noticed_from"]) if tested else DASH,
                    percent(a["bound_worst_case"]),
                    percent(a["bound_relaxed"]),
                )
            )
    kept, note = cut(rows, "summary.json")
    return Table(
        "Every attack and what it may achieve. p: one-sided, adjusted for all tests of a setting (Holm). Noticed from: "
        "the smallest true rate that the test would have noticed in 4 of 5 such studies.",
        (
            "Setting, attack, goal",
            "Got",
            "95% interval",
            "Guessing",
            "p, adjusted",
            "Noticed from",
            "Worst-case bound",
            "Relaxed bound",
        ),
        kept,
        note,
    )


def hospital_figures_table(budgets: Budgets, beside: Sequence[Setting]) -> Table:
    """Return each hospital's utility under some settings."""
    names = list(budgets.shown.row["hospitals"])
    rows = [
        (
            name,
            f"{budgets.shown.row['hospitals'][name]['n']:,}",
            *(Figures.of(s.row["hospitals"][name]).short for s in beside),
        )
        for name in names
    ]
    kept, note = cut(rows, "summary.json")
    return Table(
        f"{budgets.measure.label} on each hospital's own held-out images, with 95% intervals where there are enough.",
        ("Hospital", "n", *(s.label for s in beside)),
        kept,
        note,
    )


def noise(setting: Setting) -> str:
    """Write the noise multiplier of a setting, or its range over hospitals."""
    noise = setting.row["noise_multiplier"]
    if noise is None:
        return "no noise"
    ends = [significant(noise[key]) for key in ("min", "max")]
    return " to ".join(dict.fromkeys(ends))
