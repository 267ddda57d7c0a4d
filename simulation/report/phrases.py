"""What settings and terms are called in a report that people read."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from simulation.report.numbers import budget, counted

IMAGES: Mapping[str, str] = MappingProxyType(
    {
        "ham10000": "photographs of skin lesions (HAM10000)",
        "radimagenet": "radiological images (RadImageNet)",
        "msd_liver": "CT scans of the liver (MSD Liver)",
    }
)

PLACEMENTS: Mapping[str, str] = MappingProxyType(
    {
        "server": "an honest but curious server, which reads what every hospital sends and changes nothing",
        "malicious_server": "a malicious server, which reads what every hospital sends and chooses the model "
        "that it sends to each",
        "wire": "somebody on the line of one hospital, which reads that hospital's messages and changes nothing",
        "aggregate": "a server behind a secure sum, which reads only the sum of what the hospitals send",
        "malicious_aggregate": "a malicious server behind a secure sum, which reads only the sum and chooses the "
        "model that it sends to each hospital",
        "hospital": "one of the hospitals, which reads the common model round by round and takes out its own share",
        "release": "somebody with the final model, which may have been planted with traps before the first round",
        "worst_case": "the adversary of the formal bound, which knows everything but which candidate was used",
    }
)

ATTACKS: Mapping[str, str] = MappingProxyType(
    {
        "imprint": "plants a layer in the model whose update carries single images",
        "trap_weights": "plants a layer in the model whose neurons each fire for few images",
        "data_traps": "plants traps in the first model, each of which keeps the first image that fires it",
        "inversion": "searches for images whose update looks like the one that was sent",
        "label_counts": "reads from the last layer how many images of each class took part",
        "candidate_matching": "compares the update with what each candidate image would have added to it",
        "membership": "asks of the final model whether it was trained on a given image",
        "mean_image": "looks at nothing that a hospital sent and guesses the average public image",
    }
)

MECHANISMS: Mapping[str, str] = MappingProxyType(
    {
        "none": "federated, without privacy",
        "clip_only": "clipping only",
        "noise_only": "noise only",
        "local": "noise at each hospital",
        "distributed": "noise shared in a secure sum",
        "central": "noise at the server",
        "pooled": "all data in one place",
        "alone": "each hospital alone",
    }
)
# Those that have both: a budget, and a twin that trains without privacy.
WITHOUT = "without privacy"

GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        "Clipping and noise (DP-SGD)",
        "Before a hospital sends an update, the influence of every single image on it is limited "
        "(clipping), and random noise is added. Only both together protect. The noise multiplier says how "
        "large the noise is, measured in that limit.",
    ),
    (
        "Epsilon (ε), the privacy budget",
        "How much more likely any outcome can become because one image took part: at most e^ε times, "
        "except with probability δ (delta). Small is private. At ε = 8 the factor is already about 3,000; "
        "far above that, ε by itself says little and the attacks that were tried say more.",
    ),
    (
        "Exact ε and the ε of RDP",
        "The same noise can be priced by different methods. The report claims the upper end of a tight "
        "bracket. The widely used RDP method, as in the library Opacus, gives a larger number for the same "
        "noise.",
    ),
    (
        "Null",
        "What somebody achieves who saw nothing from the hospitals: the average of public images, or the "
        "same attack run on pure noise, whichever does better. Only what goes beyond the null was leaked.",
    ),
    (
        "SSIM",
        "Similarity of two images, 1 for identical ones. An image counts as copied above 0.9. Medical "
        "images of one kind are alike, so the null can reach 0.5 and more: an SSIM means nothing without "
        "its null.",
    ),
    (
        "Recognised (rank 1)",
        "The true image is hidden among decoys, other images that the adversary never saw. It is "
        "recognised if it is the one closest to any reconstruction. By chance that happens once in (decoys "
        "+ 1) times.",
    ),
    (
        "Recognised when shown the candidates",
        "As above, but the adversary is handed the candidate images and only has to say which one was used.",
    ),
    (
        "Worst-case bound",
        "The most that any adversary could reach in recognising one image from everything sent so far, whatever it "
        "knows and tries. A bound near 100% rules nothing out. The relaxed bound models a weaker "
        "adversary; it is no guarantee.",
    ),
    (
        "AUROC",
        "Of one image with the finding and one without, how often the model gives the higher score to the "
        "right one. 0.5 is guessing, 1 is perfect. With several classes: the mean over the classes, each against the "
        "rest.",
    ),
    (
        "MCC",
        "Matthews correlation between what the model says and what is true. 0 is guessing, 1 is perfect; a rare class "
        "cannot be ignored without paying for it.",
    ),
    (
        "Dice",
        "How far the outline that the model draws and the one that a person drew overlap: 1 where they are the same, 0 "
        "where they do not touch. Computed per scan and then averaged; a scan in which neither shows the organ is left "
        "out. Guessing: the mean mask of the training scans, drawn into every scan alike.",
    ),
    (
        "Calibration error and Brier score",
        "How far the model's probabilities can be taken at their word: of the images that it gives 30 %, do 30 % have "
        "the finding? Calibration error (15 bins of equal width) is the mean distance, Brier score the mean squared "
        "error. 0 is perfect in both.",
    ),
    (
        "95 % interval",
        "Of the utility: lesions, scans or images (whatever belongs together counts once) drawn again 1,000 times from "
        "the held-out ones. It says how much chance is in the choice of these images, not in the training.",
    ),
)


def pictures(summary: Mapping[str, Any]) -> str:
    """Return what the images of a run are."""
    kind = IMAGES.get(summary["task"], f"images ({summary['task']})")
    return f"synthetic stand-ins for {kind}" if summary["data"] == "phantom" else kind


def noun(summary: Mapping[str, Any]) -> str:
    """Return what one record is: 'image', 'scan', 'slice'."""
    settings = summary["experiment"]["task"]
    if settings["name"] != "msd_liver":
        return "image"
    return "slice" if settings["slices"] else "scan"


def heldout(summary: Mapping[str, Any]) -> str:
    """Write how many records were kept aside: '1,002 images'."""
    return counted(int(summary["heldout"]), noun(summary))


def placement(name: str) -> str:
    """Return who sits at a placement, and what one can do there."""
    return PLACEMENTS.get(name, f"an adversary at '{name}'")


def attack(name: str) -> str:
    """Return what an attack does; empty where it is not known here."""
    return ATTACKS.get(name, "")


def mechanism(name: str) -> str:
    """Return the short name of a mechanism."""
    return MECHANISMS.get(name, name)


def setting(name: str, number: float | None, *, several: bool = True) -> str:
    """Name a mechanism at a budget: 'ε = 8 (noise at each hospital)', 'clipping only'.

    Args:
        name: of the mechanism.
        number: epsilon, None without one.
        several: whether more than one mechanism has budgets; of a single one the name is left out.
    """
    if number is None:
        return f"{mechanism(name)}, {WITHOUT}" if name in ("pooled", "alone") else mechanism(name)
    return f"ε = {budget(number)} ({mechanism(name)})" if several else f"ε = {budget(number)}"


def per_unit(summary: Mapping[str, Any]) -> str:
    """Return what a hospital's own budget is counted for: 'image', 'lesion', ..."""
    return str(summary["hospitals"][0]["unit"]) if summary["hospitals"] else "image"
