import re
from pathlib import Path

import pytest

import simulation.report

STYLE = (Path(simulation.report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
TEXT = ("ink", "soft", "accent", "bad", "good", "note")
MARKS = (*(f"s{k}" for k in range(7)), "null", "bound")


def colours(scheme: str) -> dict[str, str]:
    light, dark = STYLE.split("prefers-color-scheme: dark", 1)
    block = light if scheme == "light" else dark.split("@media", 1)[0]
    return dict(re.findall(r"--([\w]+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_marks_stand_out_in_both_schemes(scheme: str):
    found = colours(scheme)
    grounds = dict.fromkeys(TEXT, ("paper", "card"))
    grounds |= {"bad": ("paper", "card", "badback"), "good": ("paper", "card", "goodback")}
    grounds |= {
        "note": ("paper", "card", "noteback"),
        "ink": ("paper", "badback", "goodback", "noteback", "same"),
    }
    for name, behind in grounds.items():
        for ground in behind:
            assert contrast(found[name], found[ground]) >= 4.5, (name, ground)
    for name in MARKS:
        assert contrast(found[name], found["card"]) >= 3, name


def test_contrast_is_the_one_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)
