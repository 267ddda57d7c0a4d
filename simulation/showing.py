"""What a person sees in the terminal when a run ends: a table, what it means, and where the report is."""

from typing import Any

from rich.console import Console
from rich.table import Table

from simulation.measures import LOSS_LIKE, Measure, label, leading
from simulation.run import Run
from simulation.study import budget_row


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
    """Print one line per cell and the report's path."""
    cells = run.summary["cells"]
    attack = _leading_attack(cells)
    shown = [key for key in cells[0]["summary"]["utility"]["metrics"] if key not in LOSS_LIKE][:2] if cells else []
    title = "Utility, price and attack per cell" + (f" (attack: {attack})" if attack else "")
    table = Table(title=title, title_justify="left")
    columns = (
        "cell",
        *(label(key) for key in shown),
        "epsilon (at most)",
        "noise",
        "images copied",
        "null",
        "identified",
        "among",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "cell" else "right")
    for cell in cells:
        row = budget_row(cell)
        noise = _number(row["noise_multiplier_max"])
        if row["noise_multiplier_min"] != row["noise_multiplier_max"]:
            noise = f"{_number(row['noise_multiplier_min'])} to {noise}"
        table.add_row(
            cell["cell"],
            *(_number(row.get(key)) for key in shown),
            _number(row["epsilon_upper"]) if row["epsilon_upper"] is not None else "no claim",
            noise,
            _percent(row.get(f"{attack}_recovered")),
            _percent(row.get(f"{attack}_null_recovered")),
            _percent(row.get(f"{attack}_rank1")),
            str(row.get(f"{attack}_decoys", 0) + 1),
        )
    console.print(table)
    _end(run, console)


def _leading_attack(cells: list[dict[str, Any]]) -> str:
    """Return the attack that copied the largest share anywhere in the study; empty without attacks."""
    rows = [row for cell in cells for row in cell["summary"]["attacks"] if row["yields"] == "images"]
    return max(rows, key=lambda row: row["recovered"] or 0.0)["attack"] if rows else ""


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
