"""Attacks by the names that the settings use."""

from configs.sections import AdversarySettings
from server.adversary.base import Attack
from server.adversary.imprint import Imprint
from server.adversary.nulls import MeanImage

ATTACKS = ("imprint", "mean_image")


def attack(name: str, settings: AdversarySettings) -> Attack:
    """Return a new attack by its name, with its own section of the settings.

    Raises:
        ValueError: naming the known attacks.
    """
    if name == Imprint.name:
        return Imprint(settings.imprint)
    if name == MeanImage.name:
        return MeanImage()
    raise ValueError(f"attack '{name}' is not known; choose from {', '.join(ATTACKS)}")
