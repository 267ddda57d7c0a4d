"""What the first screen adds to the accuracy and the price of a setting: pairs, clipping, and larger units."""

from simulation.report.budgets_numbers import Figures, Row
from simulation.report.budgets_rows import Budgets, Setting
from simulation.report.numbers import budget, percent
from simulation.report.words_budget import EMPTY_ABOVE, larger_unit_words


def within_words(budgets: Budgets, setting: Setting) -> list[str]:
    """Say how well images of one hospital are told apart: without what only tells the hospitals apart."""
    row: Row | None = setting.row.get("within_hospitals")
    own = Figures.loose(row)
    if row is None or own.estimate is None:
        return []
    share = f", {percent(row['pairs_share'])} of all pairs" if row.get("pairs_share") is not None else ""
    change = row.get("against_none")
    lost = ""
    if setting.mechanism != "none" and change is not None and change["difference"] is not None:
        lost = f" What privacy changes there: {Figures.of(change, 'difference').said_signed}."
    return [
        f"Among images of one hospital only{share}: {budgets.measure.label} {own.said}; the other pairs also tell "
        f"hospitals apart.{lost}"
    ]


def clipping_words(budgets: Budgets, setting: Setting) -> list[str]:
    """Say how much of what privacy costs is there with next to no noise: that much is clipping, not noise.

    Nothing is said where the largest budget that was tried still has noise to speak of.
    """
    largest = budgets.of(setting.mechanism)[-1:]
    if not largest or largest[0] is setting or setting.budget is None or (largest[0].budget or 0.0) < EMPTY_ABOVE:
        return []
    part = largest[0].cost
    if part.estimate is None or setting.cost.estimate is None:
        return []
    where = f"at the largest budget tried too (ε = {budget(largest[0].budget)})"
    if part.estimate < 0 and setting.cost.estimate < 0:
        return [f"Of this, {part.said_signed} is there {where}: clipping, not noise."]
    return [f"What clipping changes by itself, {where.replace(' too', '')}: {part.said_signed}."]


def larger_units(budgets: Budgets, setting: Setting) -> list[str]:
    """Say what somebody with several images pays, where a budget counts single ones."""
    unit = setting.row["protects"]
    if unit is None or unit == "hospital":
        return []
    own = [cell["summary"] for cell in budgets.study["cells"] if cell["cell"] in setting.row["cells"]]
    return larger_unit_words([h for summary in own for h in summary["hospitals"] if h["epsilon"]], unit)
