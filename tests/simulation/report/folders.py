"""Run and study folders as a run writer leaves them, for the report's tests."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from configs import Experiment

Summary = dict[str, Any]
HOSPITALS = ("rosendahl", "vidir_modern", "vidir_molemax", "vienna_dias")
RATES = {"none": (0.92, 1.0), "clip_only": (0.91, 1.0), 1e9: (0.86, 0.98), 8.0: (0.0, 0.02)}


def experiment(**sections: dict[str, object]) -> Summary:
    """Return the dump of a valid experiment."""
    return Experiment().updated(task={"root": "phantom"}, training={"rounds": 40}, **sections).model_dump(mode="json")


def hospital(name: str, epsilon: float | None, *, mechanism: str = "local") -> Summary:
    """Return one hospital's row."""
    claims = epsilon is not None
    return {
        "name": name,
        "records": 320,
        "units": 320,
        "unit": "image",
        "sample_rate": 0.2,
        "noise_multiplier": 1.31 if epsilon == 8 else 2e-5 if claims else 0.0,
        "clipping_norm": None if mechanism == "none" else 1.0,
        "steps": 40 if claims else 0,
        "releases": 40,
        "delta": 1e-5 if claims else None,
        "epsilon": {"lower": epsilon * 0.999, "estimate": epsilon, "upper": epsilon, "method": "rigorous"}
        if claims
        else None,
        "epsilon_opacus_rdp": epsilon * (1.06 if epsilon < 100 else 3.1) if claims else None,
        "metrics": {"auroc": 0.86, "mcc": 0.5, "balanced_accuracy": 0.7, "loss": 0.3},
        "declined": 0,
        "ledger": f"ledger/{name}.jsonl",
    }


def attack(name: str, key: float | str, targets: int = 64) -> Summary:
    """Return one attack's row; the rates depend on the budget."""
    recovered, rank1 = RATES[key]
    hits = round(recovered * targets)
    return {
        "placement": "malicious_server",
        "attack": "imprint",
        "round": 40,
        "hospital": name,
        "targets": targets,
        "recovered": hits / targets,
        "recovered_ci": [max(0.0, recovered - 0.08), min(1.0, recovered + 0.06)],
        "null_recovered": 0.0,
        "above_null": hits > 5,
        "mean_ssim": 0.3 + 0.6 * recovered,
        "null_mean_ssim": 0.58,
        "mean_psnr": 20.0 + 18 * recovered,
        "null_mean_psnr": 21.0,
        "decoys": 159,
        "ranked": targets,
        "rank1": round(rank1 * targets) / targets,
        "rank1_p": 1e-9 if rank1 > 0.1 else 0.27,
        "identified_informed": min(1.0, rank1 + 0.02),
        "bound_worst_case": None if isinstance(key, str) else 1.0 if key > 100 else 0.08,
        "bound_relaxed": None if isinstance(key, str) else 1.0 if key > 100 else 0.03,
        "public_data": "3000 synthetic images of the phantom, other than the hospitals'",
        "readout": "raw rows",
    }


def summary(key: float | str = 8.0, *, attacked: bool = True, names: tuple[str, ...] = HOSPITALS) -> Summary:
    """Return a run's summary: a budget, or a mechanism without one."""
    mechanism = key if isinstance(key, str) else "local"
    epsilon = None if isinstance(key, str) else key
    settings: dict[str, object] = {"mechanism": mechanism, "epsilon": epsilon, "delta": 1e-5}
    placed: dict[str, object] = {"placement": "malicious_server" if attacked else "none"}
    auroc = 0.78 if epsilon == 8 else 0.88
    return {
        "kind": "run",
        "fedward": "0.1.0",
        "task": "ham10000",
        "data": "phantom",
        "engine": "ray",
        "rounds": 40,
        "seconds": 31.2,
        "model_sha256": "ab" * 32,
        "experiment_sha256": "cd" * 32,
        "experiment": experiment(privacy=settings, adversary=placed),
        "metrics": {"auroc": auroc, "mcc": 0.5, "balanced_accuracy": 0.7, "loss": 0.3},
        "clean": {"round": 39, "metrics": {"auroc": auroc + 0.01, "mcc": 0.5}} if attacked else None,
        **utility(auroc, names),
        "heldout": 160,
        "public_data": "3000 synthetic images" if attacked else None,
        "central": None,
        "hospitals": [hospital(name, epsilon, mechanism=mechanism) for name in names],
        "attacks": [attack(name, key) for name in names] if attacked else [],
        "words": [],
    }


def mechanism_summary(mechanism: str, budget: float | str) -> Summary:
    """Return the summary of a run under any mechanism."""
    if isinstance(budget, str) and mechanism not in ("pooled", "alone"):
        content = summary("clip_only" if mechanism == "noise_only" else mechanism)
        content["experiment"]["privacy"]["mechanism"] = mechanism
        return content
    names = {"pooled": ("pooled",), "alone": HOSPITALS[:1]}.get(mechanism, HOSPITALS)
    key = "none" if isinstance(budget, str) else 8.0 if budget < 100 else 1e9
    content = summary(key, attacked=mechanism != "alone", names=names)
    content["experiment"]["privacy"].update(mechanism=mechanism, epsilon=budget)
    if mechanism == "central":
        first = content["hospitals"][0]
        terms = ("noise_multiplier", "sample_rate", "steps", "delta", "epsilon", "epsilon_opacus_rdp")
        content["central"] = {"unit": "hospital", **{name: first[name] for name in terms}}
        for row in content["hospitals"]:
            row.update(epsilon=None, epsilon_opacus_rdp=None, delta=None, noise_multiplier=0.0)
    return content


def utility(auroc: float, names: tuple[str, ...]) -> Summary:
    """Return what a summary says about intervals, guessing and subgroups."""
    groups = [
        subgroup("class", "attention", 0.62, 40, metric="recall"),
        subgroup("class", "no attention", 0.9, 120, metric="recall"),
        subgroup("sex", "female", auroc + 0.02, 78),
        subgroup("sex", "male", auroc - 0.03, 80),
        subgroup("age", "0 to 19", None, 2),
        subgroup("age", "60 to 79", auroc - 0.2, 60),
    ]
    return {
        "utility": {
            "primary": "auroc",
            "metrics": ["auroc", "mcc", "balanced_accuracy", "loss"],
            "class_names": ["no attention", "attention"],
            "unit": "lesion",
            "level": 0.95,
        },
        "null_metrics": {"auroc": 0.5, "mcc": 0.0, "balanced_accuracy": 0.5, "loss": 0.49},
        "intervals": {
            "overall": interval("auroc", auroc, 160),
            "clean": interval("auroc", auroc + 0.01, 160),
            "hospitals": {name: interval("auroc", 0.86, 40) for name in names},
        },
        "subgroups": groups,
    }


def interval(metric: str, value: float | None, count: int) -> Summary:
    """Return a metric with its interval; None for too few."""
    known = value is not None
    return {
        "metric": metric,
        "estimate": value,
        "low": value - 0.05 if known else None,
        "high": value + 0.04 if known else None,
        "level": 0.95,
        "n": count,
        "units": count - 1,
        "reason": "" if known else "fewer than 10 independent units",
    }


def subgroup(group: str, value: str, estimate: float | None, count: int, metric: str = "auroc") -> Summary:
    """Return one row of the subgroups."""
    return {"group": group, "value": value, **interval(metric, estimate, count)}


def segmentation(*, scans: int = 13) -> Summary:
    """Return the summary of a run that outlines livers; with few scans there is no interval."""
    content = summary(8.0, attacked=False, names=("a", "b"))
    metrics = {"dice_liver": 0.78, "dice_tumour": None, "dice_soft": 0.55, "loss": 0.45}
    row = interval("dice_liver", 0.78, scans)
    if scans < 10:
        row |= {"low": None, "high": None, "reason": "fewer than 10 independent units"}
    content["experiment"]["task"] |= {"name": "msd_liver", "slices": False}
    content |= {"task": "msd_liver", "heldout": scans, "metrics": metrics, "clean": None, "subgroups": []}
    content["utility"] |= {"primary": "dice_liver", "metrics": list(metrics), "unit": "scan"}
    content["utility"]["class_names"] = ["background", "liver", "tumour"]
    content["null_metrics"] = {"dice_liver": 0.41, "dice_tumour": 0.0, "dice_soft": 0.4, "loss": 0.6}
    content["intervals"] = {"overall": row, "clean": None, "hospitals": {}}
    for hospital_row in content["hospitals"]:
        hospital_row.update(metrics=metrics, unit="scan")
    return content


def write_run(folder: Path, content: Summary, *, pictures: bool = True) -> Path:
    """Write a run's folder: summary, rounds.csv, and with an adversary attacks.csv and pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(content), encoding="utf-8")
    names = [h["name"] for h in content["hospitals"]]
    with (folder / "rounds.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        metrics = content["utility"]["metrics"]
        own_name = content["utility"]["primary"]
        writer.writerow(["round", "asked", "released", "seconds", *metrics, *(f"{own_name}[{n}]" for n in names)])
        for r in range(1, 41):
            measured = r % 8 == 0 or r == 39
            top = 0.9 - 0.35 * 0.93**r
            values = [top, top - 0.3, top - 0.1, 0.9 - top / 2] if measured else [""] * 4
            own = [top - 0.03 + 0.02 * k if measured else "" for k in range(len(names))]
            writer.writerow([r, len(names), len(names), 0.7, *values, *own])
    if content["attacks"]:
        _write_attacks(folder, content, pictures)
    return folder


def _write_attacks(folder: Path, content: Summary, pictures: bool) -> None:
    (folder / "reconstructions").mkdir(exist_ok=True)
    rng = np.random.default_rng(3)
    rows: list[Summary] = []
    for row in (r for r in content["attacks"] if "recovered" in r):
        for target in range(8):
            files = {"true_png": "", "reconstructed_png": "", "null_png": ""}
            good = (row["recovered"] or 0) > 0.5 and target < 7
            if pictures:
                stem = f"reconstructions/{len(rows):04d}"
                files = {key: f"{stem}-{key[:4]}.png" for key in files}
                _pictures(folder, files, rng, good)
            head = {key: row[key] for key in ("placement", "attack", "round", "hospital")}
            ssim = 0.95 - 0.01 * target if good else 0.31
            scores = {"ssim": ssim, "psnr": 31.0, "ncc": 0.9, "null_ssim": 0.58, "null_psnr": 21.0}
            rank = {"recovered": good, "rank": 1.0 if good else 54.0, "decoys": 159}
            rows.append({**head, "target": f"image-{target}", **scores, **rank, **files})
    if not rows:
        return
    with (folder / "attacks.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _pictures(folder: Path, files: dict[str, str], rng: np.random.Generator, good: bool) -> None:
    y, x = np.mgrid[0:32, 0:32]
    centre, size = rng.uniform(10, 22, 2), rng.uniform(5, 10)
    inside = ((x - centre[0]) ** 2 + ((y - centre[1]) * rng.uniform(0.7, 1.4)) ** 2 < size**2)[..., None]
    skin, lesion = np.array([224, 178, 158.0]), rng.uniform(40, 130, 3)
    true = np.where(inside, lesion, skin) + rng.normal(0, 6, (32, 32, 1))
    blur = np.where(((x - 16) ** 2 + (y - 16) ** 2 < 90)[..., None], 150, skin)
    got = true + rng.normal(0, 8, true.shape) if good else rng.normal(140, 60, true.shape)
    for key, pixels in zip(files, (true, got, blur), strict=True):
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / files[key])
