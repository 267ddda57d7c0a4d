"""The figures of what the attacks of a run got, per attacked update."""

from collections.abc import Sequence

from simulation.report.frame import RIGHT, ChartRow, Dot, Figure, legend_mark, row_chart
from simulation.report.numbers import percent
from simulation.report.outcomes import Outcome, pooled
from simulation.report.plot import linear
from simulation.report.tables_attacks import attack_table

MOST_ROWS = 14
SHARES = tuple((share, percent(share)) for share in (0, 0.25, 0.5, 0.75, 1))


def copies_figure(found: Sequence[Outcome]) -> Figure | None:
    """Draw the share of copied images per attacked update, with its interval and its null."""
    rows = [
        ChartRow(
            name,
            f"{o.recovered.hits:,} of {o.recovered.total:,}",
            (
                Dot(o.recovered.rate, "disc", "s0", o.recovered.interval),
                Dot(o.null, "diamond", "null"),
            ),
        )
        for name, o in _releases(found)
        if o.recovered is not None
    ]
    if not rows:
        return None
    title = "Images that were copied"
    legend = (
        (legend_mark("disc", "s0"), "copied (SSIM above 0.9), with its 95% interval"),
        (legend_mark("diamond", "null"), "null: somebody who saw nothing"),
    )
    caption = (
        "Exact intervals, each image counted as one independent trial. The null is the better of the average "
        "public image and the attack run on pure noise."
    )
    svg = _shares(title, rows, "share of the images in an update")
    return Figure("copies", title, caption, svg, legend, attack_table(found))


def recognised_figure(found: Sequence[Outcome]) -> Figure | None:
    """Draw how many targets were recognised among decoys, beside chance and the formal bounds."""
    units = [(name, o) for name, o in _releases(found) if o.rank1 is not None]
    if not units:
        return None
    title = "Images that were recognised among decoys"
    legend = [
        (legend_mark("disc", "s0"), "recognised, with its 95% interval"),
        (legend_mark("ring", "s3"), "recognised when shown the candidates"),
        (legend_mark("diamond", "null"), "null: chance"),
    ]
    if any(o.bound_worst_case is not None for _, o in units):
        legend.append((legend_mark("pointer", "bound"), "worst-case bound up to that update"))
        legend.append((legend_mark("square", "bound"), "relaxed bound (a model, no guarantee)"))
    caption = (
        "Recognised: of the true image and its decoys, which the adversary never saw, the true one is "
        "closest to a reconstruction. Bounds hold for an image that is known to take "
        "part, given all updates up to the attacked one."
    )
    svg = _shares(title, [_recognised_row(name, o) for name, o in units], "share of the targets")
    return Figure("recognised", title, caption, svg, tuple(legend), attack_table(found))


def _recognised_row(name: str, outcome: Outcome) -> ChartRow:
    rank1, informed = outcome.rank1, outcome.informed
    return ChartRow(
        name,
        f"{rank1.hits:,} of {rank1.total:,} among {outcome.decoys + 1:,}" if rank1 else "",
        (
            Dot(outcome.bound_worst_case, "pointer", "bound", lift=9),
            Dot(outcome.bound_relaxed, "square", "bound", lift=-9),
            Dot(rank1.rate if rank1 else None, "disc", "s0", rank1.interval if rank1 else None),
            Dot(informed.rate if informed else None, "ring", "s3"),
            Dot(outcome.chance, "diamond", "null"),
        ),
    )


def _shares(title: str, rows: Sequence[ChartRow], axis: str) -> str:
    return row_chart(title, rows, linear(0, 1, 8, RIGHT - 8), SHARES, axis)


def _releases(found: Sequence[Outcome]) -> list[tuple[str, Outcome]]:
    """Name every attacked update; many of them are taken together by attack."""
    rows = [(o, row) for o in found for row in o.rows]
    if len(rows) > MOST_ROWS:
        return [(f"{o.attack}, all updates", o) for o in found]
    rounds = len({row["round"] for _, row in rows}) > 1
    named: list[tuple[str, Outcome]] = []
    for outcome, row in rows:
        name = f"{row['hospital']}, round {row['round']}" if rounds else str(row["hospital"])
        named.append((f"{outcome.attack}: {name}" if len(found) > 1 else name, pooled([row])))
    return named
