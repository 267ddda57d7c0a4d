"""The imprint on real images: HAM10000 at 64x64, batch 64, 512 rows, 3,000 public images of other lesions."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.adversary import ImprintSettings
from server.adversary.base import Addressee, Candidates, PublicData, Trace
from server.adversary.imprint import BIAS, WEIGHT, Imprint
from server.adversary.public_model import mean_image
from simulation.scoring.assignment import pair
from simulation.scoring.similarity import squared_errors
from tasks.models import ModelSpec, initial_weights, normalise
from tests.server.adversary import hospital

SPEC = ModelSpec("resnet9", (3, 64, 64), 1, 4)
BATCH, SEEDS, PUBLIC = 64, 5, 3_000

pytestmark = pytest.mark.skipif(
    not (Path(os.environ.get("FEDWARD_DATA", "/nonexistent")) / "ham10000").is_dir(),
    reason="FEDWARD_DATA names no folder with ham10000",
)


def read(count: int, side: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Images and lesions, whole lesions in a drawn order."""
    root = Path(os.environ["FEDWARD_DATA"]) / "ham10000"
    files = {path.stem: path for path in root.glob("*/*.jpg")}
    with (root / "HAM10000_metadata.csv").open() as file:
        rows = list(csv.DictReader(file))
    lesions = sorted({row["lesion_id"] for row in rows})
    place = dict(zip(np.random.default_rng(0).permutation(lesions).tolist(), range(len(lesions)), strict=True))
    rows = sorted(rows, key=lambda row: place[row["lesion_id"]])[:count]
    images = [
        np.asarray(Image.open(files[row["image_id"]]).convert("RGB").resize((side, side), Image.Resampling.BILINEAR))
        for row in rows
    ]
    return np.stack(images).transpose(0, 3, 1, 2).copy(), np.array([row["lesion_id"] for row in rows])


def test_recovers_four_of_five_real_images_without_privacy_and_clipped():
    torch.set_num_threads(1)
    images, lesions = read(PUBLIC + 1_500)
    public = PublicData(images[:PUBLIC], "other lesions")
    rest = images[PUBLIC:][~np.isin(lesions[PUBLIC:], lesions[:PUBLIC])]
    imprint = Imprint(ImprintSettings())
    agreed = {name: value.numpy() for name, value in initial_weights(SPEC, 0).items()}
    spec, weights = imprint.plant(SPEC, agreed, public)
    built = hospital.model(spec, weights)
    module = [built.wide.units.weight, built.wide.units.bias]
    recovered = {None: [], 1.0: []}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        batch = rest[rng.permutation(len(rest))[:BATCH]]
        sums = {clip: {WEIGHT: np.zeros((512, 64 * 64 * 3)), BIAS: np.zeros(512)} for clip in recovered}
        home = []
        for image, label in zip(batch, rng.integers(0, 2, BATCH), strict=True):
            loss = hospital.loss(built(normalise(torch.tensor(image[None]))), int(label))
            weight, bias = (g.numpy() for g in torch.autograd.grad(loss, module))
            fired = np.flatnonzero(bias)
            assert len(fired) == 1  # float32 loses no image between two bins
            row = int(fired[0])
            z, one = weight[row].astype(np.float64), float(bias[row])
            norm = np.sqrt(np.sum(z**2) + one**2)  # the module is all but 1e-10 of the gradient
            home.append(row)
            for clip, total in sums.items():
                factor = 1.0 if clip is None else min(1.0, clip / norm)
                total[WEIGHT][row] += factor * z
                total[BIAS][row] += factor * one
        alone = np.bincount(home, minlength=512)[home] == 1
        for clip, total in sums.items():
            seen = hospital.observe(spec, weights, total, clip=clip, batch=BATCH)
            guesses = imprint.reconstruct(Trace.of(seen), public)
            ssim = pair(batch, guesses.images, mean_image(public, SPEC.shape)).ssim
            # Nearest guess, not the pair: of two nearly equal images one may be paired with the other's copy.
            assert np.all(squared_errors(batch[alone], guesses.images).min(axis=1) < 1e-9)
            recovered[clip].append(np.mean(ssim > 0.9))
            scores = imprint.informed(Trace.of(seen), public, Candidates(batch))
            assert np.all(scores[alone] > 1 - 1e-6)
    assert np.mean(recovered[None]) >= 0.80
    assert np.mean(recovered[1.0]) >= 0.80


def test_ten_real_hospitals_in_one_sum_are_kept_apart_by_rows_of_their_own():
    torch.set_num_threads(1)
    hospitals, each, rows = 10, 16, 128
    images, lesions = read(1_000 + 800, 32)
    public = PublicData(images[:1_000], "other lesions")
    rest = images[1_000:][~np.isin(lesions[1_000:], lesions[:1_000])][: hospitals * each]
    spec = ModelSpec("resnet9", (3, 32, 32), 1, 4)
    imprint = Imprint(ImprintSettings(rows=rows, per_hospital=True))
    agreed = {name: value.numpy() for name, value in initial_weights(spec, 0).items()}
    total = {WEIGHT: np.zeros((hospitals * rows, 3 * 32 * 32)), BIAS: np.zeros(hospitals * rows)}
    for index in range(hospitals):
        sent, weights = imprint.plant(spec, agreed, public, Addressee(f"h{index}", index, hospitals))
        built = hospital.model(sent, weights)
        batch = normalise(torch.tensor(rest[index * each : (index + 1) * each]))
        loss = sum(hospital.loss(built(one[None]), i % 2).sum() for i, one in enumerate(batch))
        found = torch.autograd.grad(loss, [built.wide.units.weight, built.wide.units.bias])
        for name, value in zip((WEIGHT, BIAS), found, strict=True):
            total[name] += value.double().numpy()
    sent, weights = imprint.plant(spec, agreed, public, Addressee(count=hospitals))
    guesses = imprint.reconstruct(Trace.of(hospital.observe(sent, weights, total, batch=hospitals * each)), public)
    copied = pair(rest, guesses.images, mean_image(public, spec.shape)).ssim > 0.9
    theory = (1 - 1 / rows) ** (each - 1)
    assert copied.mean() > theory - 3 * np.sqrt(theory * (1 - theory) / len(rest))
