"""True, reconstructed and null images of an attack as PNG files, where the settings allow pictures at all."""

import hashlib
import re
from typing import final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from configs import Experiment
from server.adversary.base import Observation
from simulation.folder import RunFolder
from simulation.scoring.score import AttackScore, TargetScore

PICTURES = 8  # per attacked release


@final
class Pictures:
    """Writes pictures into a run's `reconstructions/`; writes nothing where `report.images` does not allow it."""

    def __init__(self, folder: RunFolder, experiment: Experiment) -> None:
        self._folder = folder
        wanted = experiment.report.images
        self.allowed = wanted == "real" or (wanted == "phantom" and experiment.phantom)

    def save(
        self,
        attack: str,
        seen: Observation,
        truths: NDArray[np.uint8],
        guesses: NDArray[np.float32],
        score: AttackScore,
        mean_image: NDArray[np.float32],
    ) -> dict[int, dict[str, str]]:
        """Write the pictures of a few targets and return their file names by target.

        The targets are spread evenly over the order of their SSIM, so that neither successes nor failures are
        picked out.
        """
        if not self.allowed or not score.rows:
            return {}
        order = sorted(score.rows, key=lambda row: row.ssim)
        picked = {int(i) for i in np.linspace(0, len(order) - 1, num=min(PICTURES, len(order))).round()}
        return {
            order[i].target: self._three(
                f"{attack}-r{seen.round}-{_safe(seen.hospital)}", order[i], truths, guesses, mean_image
            )
            for i in sorted(picked)
        }

    def _three(
        self,
        stem: str,
        row: TargetScore,
        truths: NDArray[np.uint8],
        guesses: NDArray[np.float32],
        mean_image: NDArray[np.float32],
    ) -> dict[str, str]:
        self._folder.reconstructions.mkdir(parents=True, exist_ok=True)
        guess = guesses[row.reconstruction] if row.reconstruction >= 0 else mean_image
        images = {"true": truths[row.target] / 255.0, "reconstructed": guess, "null": mean_image}
        names: dict[str, str] = {}
        for kind, image in images.items():
            name = f"reconstructions/{stem}-{row.target:04d}-{kind}.png"
            flat = image[:, image.shape[1] // 2] if image.ndim == 4 else image  # of a volume its middle slice
            pixels = np.rint(np.clip(flat, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
            Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(self._folder.path / name)
            names[f"{kind}_png"] = name
        return names


def _safe(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
    return plain if plain == name else f"{plain[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
