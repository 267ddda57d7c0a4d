"""The tables of a study of budgets: at equal epsilon, at equal noise, joining, price, and those of its figures."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from simulation.report import phrases
from simulation.report.budgets_figure_tables import noise
from simulation.report.budgets_numbers import Figures, Row, exact, number, of
from simulation.report.budgets_rows import BRIEF, Budgets, Setting
from simulation.report.numbers import DASH, budget, interval, percent, significant
from simulation.report.tables import Table, cut

FILES: Mapping[str, str] = MappingProxyType(
    {"equal_noise": "equal_noise.csv", "joining": "joining.csv", "price": "price.csv"}
)
WORDY = ("Strongest attack",)


def write_tables(folder: Path, study: Row) -> None:
    """Write the comparisons of a study beside its report, one file each; those without rows are left out."""
    for key, name in FILES.items():
        rows: Sequence[Mapping[str, Any]] = study[key]
        if not rows:
            continue
        columns = list(dict.fromkeys(column for row in rows for column in row))
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)


def equal_epsilon_table(budgets: Budgets) -> Table:
    """Return one row per setting: utility, price, bound and the strongest attack beside its null."""
    columns = [(heading, [write(s) for s in budgets.settings]) for heading, write in _columns(budgets)]
    kept, note = cut(list(zip(*(cells for _, cells in columns), strict=True)), "settings.csv")
    headings = tuple(heading for heading, _ in columns)
    words = tuple(k for k, heading in enumerate(headings) if heading in WORDY or heading.startswith("Worst hospital"))
    return Table(_equal_epsilon_caption(budgets), headings, kept, note, words=words)


def _columns(budgets: Budgets) -> list[tuple[str, Callable[[Setting], str]]]:
    """Return the columns at equal budgets; those of attacks only where somebody attacked."""
    metric = budgets.measure.label
    columns: list[tuple[str, Callable[[Setting], str]]] = [
        ("Setting", lambda s: s.label),
        (metric, lambda s: s.utility.short),
        ("ε at most", lambda s: significant(s.epsilon) if s.epsilon is not None else "no claim"),
        ("Protects each", lambda s: s.row["protects"] or "nobody"),
    ]
    if budgets.attacked:
        columns += [
            ("Strongest attack", _strongest),
            ("Got", lambda s: DASH if s.attack is None else _got(s.attack)),
            ("95% interval", lambda s: DASH if s.attack is None else interval((s.attack["low"], s.attack["high"]))),
            ("Guessing", lambda s: DASH if s.attack is None else percent(s.attack["null"])),
            ("Above guessing", lambda s: DASH if s.attack is None else "yes" if s.attack["above_null"] else "no"),
            ("Bound on that attack", lambda s: DASH if s.attack is None else percent(s.attack["bound_worst_case"])),
        ]
    columns += [
        ("Bound, draws secret (guessing)", _bound),
        (f"Worst hospital ({metric})", _worst),
        (_of_class(budgets), lambda s: Figures.of(s.row["minority"]).short),
    ]
    if any((s.row["minority"] or {}).get("specificity") is not None for s in budgets.settings):
        columns.append(("Specificity", lambda s: Figures.loose((s.row["minority"] or {}).get("specificity")).short))
    return [
        *columns,
        ("Noise multiplier", noise),
        ("Noise on the mean", lambda s: significant(s.row["noise_on_mean"]) if s.row["noise_on_mean"] else "none"),
        ("ε by RDP (Opacus)", lambda s: significant(s.row["epsilon_opacus_rdp"])),
    ]


def _equal_epsilon_caption(budgets: Budgets) -> str:
    words = [
        f"One row per mechanism and budget, seeds together, with 95% intervals. {budgets.measure.label} on "
        f"{budgets.heldout} that nobody trained on. ε at most: of whoever pays most, exactly accounted, and as the RDP "
        "accountant of Opacus would print it. Bound, draws secret: of finding one of those who are protected in the "
        "whole run, for whoever does not know in which steps they were drawn; in brackets by guessing.",
    ]
    if budgets.study["joining"]:
        words.append(
            "'Each hospital alone': its model judged on all hospitals' images; what joining brings to a hospital "
            "stands under Joining."
        )
    if budgets.attacked:
        words.append(
            "Copied: SSIM above 0.9; visible: SSIM above what guessing reaches for one image in twenty; recognised: "
            "among decoys, or if the attacker is shown the candidates. Got: exact interval, each image counted as one "
            "independent trial; above guessing: one-sided, 95% confidence, all tests of a setting allowed for (Holm). "
            "Bound on that attack: for whoever knows that the image took part in the attacked step, among the "
            "attack's own candidates; so it may lie above the other bound."
        )
    return " ".join(words)


def _of_class(budgets: Budgets) -> str:
    rarest = next((s.row["minority"] for s in budgets.settings if s.row["minority"]), None)
    return f"'{rarest['class']}' {'recall' if rarest['metric'] == 'recall' else 'Dice'}" if rarest else "Rarest class"


def equal_noise_table(budgets: Budgets) -> Table | None:
    """Return what each mechanism pays at the noise that pooled data have at each budget; None if nobody priced it."""
    rows = [
        (
            f"As pooled at ε = {budget(row['budget'])}: {phrases.mechanism(row['mechanism'])}",
            significant(row["noise_on_mean"]),
            significant(row["noise_multiplier"]),
            significant(row["epsilon_upper"]),
            row["protects"] or "nobody",
            _pooled_utility(budgets, row),
            str(row["note"]),
        )
        for row in budgets.study["equal_noise"]
    ]
    if not rows:
        return None
    kept, note = cut(rows, FILES["equal_noise"])
    return Table(
        "The other comparison: every mechanism with as much noise on the mean gradient as pooled data have. Same "
        "noise, same accuracy (as far as the note says); the mechanisms differ in what they pay for it. Priced, "
        "not trained.",
        (
            "Noise, mechanism",
            "Noise on the mean",
            "Noise multiplier charged",
            "ε at most",
            "Protects each",
            f"{budgets.measure.label} of pooled data",
            "Note",
        ),
        kept,
        note,
        words=(6,),
    )


def joining_table(budgets: Budgets) -> Table | None:
    """Return what each hospital gets alone and together; None where nobody trained alone."""
    rows = [
        (
            f"{row['hospital']}, {_where(row)}",
            exact(row["alone"]),
            exact(row["joined"]),
            Figures.of(row, "difference").signed,
            _share(budgets, row),
            str(row.get("why", "")) or DASH,
        )
        for row in budgets.study["joining"]
    ]
    if not rows:
        return None
    kept, note = cut(rows, FILES["joining"])
    return Table(
        f"{budgets.measure.label} on a hospital's own held-out images: of its own model, trained alone, and of the "
        "common one, at the same budget. Differences are joined less alone, paired by image and seed, with 95% "
        "intervals.",
        ("Hospital, setting", "Alone", "Joined", "Difference", "n", "No interval because"),
        kept,
        note,
        words=(5,),
    )


def price_table(budgets: Budgets) -> Table | None:
    """Return what federation costs beside pooled data; None where no data were pooled."""
    rows = [
        (
            _where(row),
            Figures.of(row, "difference").signed,
            DASH if row["noise_ratio"] is None else significant(row["noise_ratio"]),
            f"{row['seeds']}",
            str(row.get("why", "")) or DASH,
        )
        for row in budgets.study["price"]
    ]
    if not rows:
        return None
    kept, note = cut(rows, FILES["price"])
    return Table(
        f"{budgets.measure.label} on {budgets.heldout} less that of pooled data at the same budget, paired by "
        "image and seed, with 95% intervals; and the noise on the mean gradient as a multiple of theirs (noise at the "
        "server is on whole updates: another thing).",
        ("Setting", f"{budgets.measure.label} difference", "Noise, times pooled's", "Seeds", "No interval because"),
        kept,
        note,
        words=(4,),
    )


def hospital_terms_table(budgets: Budgets, setting: Setting) -> Table:
    """Return what every hospital of a setting draws, adds, pays and gets."""
    rows = [
        (
            name,
            f"{row['records']:,}" if row["records"] is not None else DASH,
            significant(row["sample_rate"]),
            significant(row["noise_multiplier"]) if row["noise_multiplier"] else "no noise",
            significant(row["noise_added"]) if row["noise_added"] else "none",
            significant(row["epsilon_upper"]) if row["epsilon_upper"] is not None else "no claim",
            significant(row["epsilon_opacus_rdp"]),
            Figures.of(row).short,
            f"{row['n']:,}",
        )
        for name, row in setting.row["hospitals"].items()
    ]
    kept, note = cut(rows, "summary.json")
    protects = f"ε is per {setting.row['protects']}." if setting.row["protects"] else "Nothing is claimed."
    return Table(
        f"Every hospital at {setting.label}. {protects} Noise charged: what the account counts with; added: what the "
        "hospital itself adds (a share of it in a secure sum, nothing where the server does). Of several seeds, where "
        "it is promised least.",
        (
            "Hospital",
            "Records",
            "Sample rate",
            "Noise charged",
            "Noise added",
            "ε at most",
            "ε by RDP (Opacus)",
            budgets.measure.label,
            "n",
        ),
        kept,
        note,
    )


def _worst(setting: Setting) -> str:
    row = setting.row["worst_hospital"]
    if not row:
        return DASH
    n = setting.row["hospitals"][row["name"]]["n"]
    return f"{row['name']}: {Figures.of(row).short}, {of(n)}"


def _bound(setting: Setting) -> str:
    bounds = setting.row["bounds"]
    return f"{percent(bounds['worst_case'])} ({percent(bounds['prior'])})" if bounds else DASH


def _strongest(setting: Setting) -> str:
    attack = setting.attack
    return "not tested" if attack is None else f"{attack['attack']}: {BRIEF.get(attack['goal'], attack['goal'])}"


def _got(attack: Row) -> str:
    return f"{attack['hits']:,} of {attack['targets']:,} ({percent(attack['rate'])})"


def _where(row: Row) -> str:
    return phrases.setting(row["mechanism"], number(row["budget"]))


def _share(budgets: Budgets, row: Row) -> str:
    setting = budgets.get(row["mechanism"], row["budget"])
    return f"{setting.row['hospitals'][row['hospital']]['n']:,}" if setting else DASH


def _pooled_utility(budgets: Budgets, row: Row) -> str:
    pooled = budgets.get("pooled", row["budget"])
    return DASH if pooled is None or row["mechanism"] == "central" else pooled.utility.short
