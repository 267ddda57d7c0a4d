"""What a person sees in the terminal when a run ends: a table, what it means, and where the report is."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from simulation.measures import Measure, label, leading
from simulation.run import Run

Row = dict[str, Any]


def show_run(run: Run, console: Console) -> None:
    """Print hospitals, attacks and the report's path."""
    summary = run.summary
    measure = leading(summary)
    table = Table(title=f"{summary['task']} ({summary['data']}), {summary['rounds']} rounds", title_justify="left")
    for column in ("hospital", "records", "noise multiplier", "epsilon (at most)", measure.label):
        table.add_column(column, justify="left" if column == "hospital" else "right")
    for row in summary["hospitals"]:
        claimed = f"{row['epsilon']['upper']:.4g}" if row["epsilon"] else "no claim"
        utility = _number((row["metrics"] or {}).get(measure.key))
        table.add_row(row["name"], str(row["records"]), _number(row["noise_multiplier"]), claimed, utility)
    console.print(table)
    console.print(f"all hospitals: {measured(measure)}", highlight=False)
    for attack in summary["attacks"]:
        rounds = f"round {attack['round']}" if attack["rounds"] == 1 else f"{attack['rounds']} rounds"
        where = f"{attack['attack']} at placement {attack['placement']} on {attack['hospital']}, {rounds}"
        console.print(f"{where}: {_got(attack)}", highlight=False)
    _end(run, console)


def _got(attack: dict[str, Any]) -> str:
    if attack["yields"] == "images":
        return (
            f"{_percent(attack['recovered'])} of {attack['targets']} images copied "
            f"(null {_percent(attack['null_recovered'])}), {_percent(attack['rank1'])} identified among "
            f"{attack['decoys'] + 1} (p {_number(attack['rank1_p'])})"
        )
    if attack.get("success") is None:
        return f"not judged: {attack.get('why', 'nothing to judge')}"
    return (
        f"{attack['success_name']} {_percent(attack['success'])} (null {_percent(attack.get('success_null'))}, "
        f"p {_number(attack.get('success_p'))})"
    )


def show_study(run: Run, console: Console) -> None:
    """Print one line per mechanism and budget, all seeds together, what is recommended, and the report's path."""
    study = run.summary
    rows: list[Row] = study["settings"]
    metric = label(rows[0]["metric"]) if rows else "utility"
    seeds = max((row["seeds"] for row in rows), default=0)
    title = f"What each budget buys, {seeds} seed{'s' * (seeds != 1)} each"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    figures = (metric, "95 %", "worst\nhospital", "noise", "exact", "paper's")
    for column in ("mechanism", "budget", *figures, "protects", "bound", "best attack", "got (null)", "above"):
        left = column in ("mechanism", "protects", "best attack", "above")
        table.add_column(column, justify="left" if left else "right")
    for row in rows:
        table.add_row(row["mechanism"], _budget(row["budget"]), *_utility(row), *_price(row), *_attacked(row))
    console.print(table)
    for one in study["refused"]:
        where = f"{one['mechanism']} at budget {_budget(one['budget'])}"
        console.print(f"not run: {where}: {one['why']}", highlight=False, markup=False, soft_wrap=True)
    console.print(recommendation(study), highlight=False, markup=False, soft_wrap=True)
    _end(run, console)


def recommendation(study: Row) -> str:
    """Write the recommended budget in a sentence, or why there is none."""
    found = study["recommended"]
    head = "No budget is recommended."
    if found["budget"] is not None:
        head = f"Recommended: {found['mechanism']} at epsilon {_budget(found['budget'])}."
    return " ".join([head, *found["why"]])


def _utility(row: Row) -> tuple[str, str, str]:
    found, worst = row["utility"], row["worst_hospital"]
    low, high = (found or {}).get("low"), (found or {}).get("high")
    ends = "-" if low is None or high is None else f"{low:.2f} to {high:.2f}"
    return _number((found or {}).get("estimate")), ends, _number((worst or {}).get("estimate"))


def _price(row: Row) -> tuple[str, ...]:
    noise, exact, bounds = row["noise_multiplier"], row["epsilon"], row["bounds"]
    ends = [_number(noise[key]) for key in ("min", "max")] if noise else ["-"]
    return (
        " to ".join(dict.fromkeys(ends)),
        _number(exact["upper"]) if exact else "no claim",
        _number(row["epsilon_opacus_rdp"]),
        row["protects"] or "nobody",
        _percent(bounds["worst_case"]) if bounds else "-",
    )


def _attacked(row: Row) -> tuple[str, str, str]:
    best = row["attack"]
    if not best or best.get("rate") is None:
        return "-", "-", "-"
    got = f"{_percent(best['rate'])} ({_percent(best['null'])})"
    return f"{best['attack']}: {best['goal']}", got, "yes" if best["above_null"] else "no"


def _budget(value: Any) -> str:
    return "none" if value is None or value == "none" else f"{value:g}"


def measured(measure: Measure) -> str:
    """Write the leading metric with its interval, beside what guessing reaches."""
    if measure.value is None:
        return f"{measure.label} could not be measured"
    ends = measure.interval
    span = f"95 % interval {ends[0]:.3f} to {ends[1]:.3f}" if ends else f"no interval: {measure.why}"
    return f"{measure.label} {measure.value:.3f} ({span}; without looking: {_number(measure.guess)})"


def _end(run: Run, console: Console) -> None:
    console.print(f"report: {run.folder / 'report.html'}", highlight=False, soft_wrap=True)


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}"


def _percent(value: Any) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
