"""Strips of true, reconstructed and null images, embedded where the settings allow pictures."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from simulation.report import phrases
from simulation.report.loading import Row, RunFiles, number
from simulation.report.numbers import DASH, counted, decimal

MOST = 8
KINDS = (
    ("true_png", "True image"),
    ("reconstructed_png", "Rebuilt"),
    ("null_png", "Null"),
)


@final
@dataclass(frozen=True)
class Picture:
    """An embedded image: a data URI and what a screen reader says."""

    uri: str
    alt: str


@final
@dataclass(frozen=True)
class Strip:
    """Targets side by side: a table whose columns are targets.

    Attributes:
        caption: what it shows.
        rows: heading and one picture per target, for each kind of image.
        measures: heading and one text per target.
    """

    caption: str
    rows: tuple[tuple[str, tuple[Picture | None, ...]], ...]
    measures: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def count(self) -> int:
        """Number of targets."""
        return len(self.rows[0][1])


def strips(run: RunFiles, most: int = MOST) -> list[Strip]:
    """Return one strip per attack of a run; none where no picture may be shown or none was written."""
    if not run.pictures_allowed:
        return []
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in run.targets:
        if row.get("reconstructed_png") and row.get("true_png"):
            groups.setdefault((row["placement"], row["attack"]), []).append(row)
    return [_strip(run, placement, attack, _evenly(rows, most)) for (placement, attack), rows in groups.items()]


def why_none(run: RunFiles) -> str:
    """Say why there are no pictures; empty where there are some."""
    if strips(run, 1):
        return ""
    wanted = run.summary["experiment"]["report"]["images"]
    if not run.summary["attacks"]:
        return "There are no pictures, because no attack was run."
    if run.pictures_allowed:
        return "There are no pictures: the attacks left none in the run's folder."
    data = "synthetic" if run.summary["data"] == "phantom" else "real"
    return (
        f"There are no pictures: the setting report.images is '{wanted}' and the images are {data}. Real "
        "images are embedded only with report.images: real."
    )


def shows_real(runs: Sequence[RunFiles]) -> bool:
    """Say whether a page about these runs contains images of real patients."""
    return any(run.summary["data"] != "phantom" and strips(run, 1) for run in runs)


def _evenly(rows: list[Row], most: int) -> list[Row]:
    """Return a few rows, evenly spread from best to worst: neither successes nor failures are picked."""
    order = sorted(rows, key=lambda row: (-(number(row["ssim"]) or 0.0), row["hospital"], row["target"]))
    if len(order) <= most:
        return order
    if most == 1:
        return order[:1]
    return [order[round(k * (len(order) - 1) / (most - 1))] for k in range(most)]


def _strip(run: RunFiles, placement: str, attack: str, rows: list[Row]) -> Strip:
    who = phrases.placement(placement).split(", which")[0]
    return Strip(
        f"{counted(len(rows), 'image')} attacked with '{attack}' by {who}, spread evenly from the best "
        "reconstruction to the worst; enlarged without smoothing. Null: the average public image, which "
        "anybody has. SSIM is similarity, 1 for identical images; rank is the true image’s place among "
        "decoys. The null’s SSIM is of the stronger null: that image, or the attack on pure noise.",
        tuple((heading, tuple(_picture(run.folder, row, kind, heading) for row in rows)) for kind, heading in KINDS),
        (
            ("SSIM", tuple(decimal(number(row["ssim"])) for row in rows)),
            ("Null’s SSIM", tuple(decimal(number(row["null_ssim"])) for row in rows)),
            ("Rank", tuple(_rank(row) for row in rows)),
        ),
    )


def _rank(row: Row) -> str:
    rank, decoys = number(row.get("rank")), number(row.get("decoys"))
    return DASH if rank is None or decoys is None else f"{rank:,.0f} / {decoys + 1:,.0f}"


def _picture(folder: Path, row: Row, kind: str, heading: str) -> Picture | None:
    name = row.get(kind)
    if not name:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix != ".png" or not path.is_file():
        return None
    alt = f"{heading}, an image of {row['hospital']}"
    if kind == "reconstructed_png":
        alt = f"{alt}, SSIM {decimal(number(row['ssim']))}"
    return Picture(f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}", alt)
