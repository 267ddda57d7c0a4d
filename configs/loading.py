"""Read an experiment or a study from YAML: presets, `base:` files, overrides, and errors in one sentence."""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import InputError
from configs.experiment import Experiment, Study

PRESETS = Path(__file__).parent

M = TypeVar("M", bound=BaseModel)


def preset_names() -> list[str]:
    """Return the names of the presets that ship with fedward."""
    return sorted(path.relative_to(PRESETS).with_suffix("").as_posix() for path in PRESETS.rglob("*.yaml"))


def load(path_or_preset: str | Path, overrides: Iterable[str] = ()) -> Experiment | Study:
    """Load a configuration.

    Args:
        path_or_preset: a YAML file, or the name of a preset (see :func:`preset_names`).
        overrides: settings as ``"section.key=value"``; values are read as YAML.

    Returns:
        A Study where the file has a `study` section, else an Experiment.

    Raises:
        InputError: with one sentence that names the file or the field.
    """
    content = _read(_locate(path_or_preset), seen=())
    for override in overrides:
        _apply(content, override)
    study = content.pop("study", None)
    experiment = _validate(Experiment, content)
    if study is None:
        return experiment
    return _validate(Study, {"experiment": experiment, "axes": study}, rename={"axes": "study"})


def _locate(path_or_preset: str | Path) -> Path:
    path = Path(path_or_preset)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        if not path.is_file():
            raise InputError(f"{path}: no such configuration file.")
        return path
    preset = PRESETS / f"{path_or_preset}.yaml"
    if preset.is_file():
        return preset
    near = difflib.get_close_matches(str(path_or_preset), preset_names(), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"presets are {', '.join(preset_names())}."
    raise InputError(f"{path_or_preset}: neither a configuration file nor a preset; {hint}")


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise InputError(f"{path}: its 'base:' leads back to itself; remove the circle.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        raise InputError(f"{path}: not readable as YAML{line}; check indentation and quotes there.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a configuration is a mapping of sections, not a {type(content).__name__}.")
    base = content.pop("base", None)
    if base is None:
        return content
    base_path = path.parent / str(base)
    if not base_path.is_file():
        raise InputError(f"{path}: base: no such file '{base}' beside it.")
    return _merge(_read(base_path, (*seen, path)), content)


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override}: write it as section.key=value.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {override}: the value is not readable as YAML.") from error
    *sections, last = key.strip().split(".")
    place = content
    for section in sections:
        below = place.get(section)
        if below is None:
            below = {}
        if not isinstance(below, dict):
            raise InputError(f"--set {override}: '{section}' is a value, not a section.")
        place[section] = dict(below)
        place = place[section]
    place[last] = value


def _validate(model: type[M], content: Any, rename: dict[str, str] | None = None) -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(_sentence(model, error, rename or {})) from None


def _sentence(model: type[BaseModel], error: ValidationError, rename: dict[str, str]) -> str:
    problems = error.errors(include_url=False)
    first = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    loc = [str(part) for part in first["loc"]]
    field = ".".join(rename.get(part, part) for part in loc)
    more = f" ({len(problems) - 1} more problem{'s' * (len(problems) > 2)} in this file.)" if problems[1:] else ""
    if first["type"] == "extra_forbidden":
        known = list(_section_at(model, loc[:-1]).model_fields)
        near = difflib.get_close_matches(loc[-1], known, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys are {', '.join(known)}."
        return f"{field}: unknown key; {hint}{more}"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"]) if "ctx" in first else first["msg"]
        return f"{field + ': ' if field else ''}{message}.{more}"
    return f"{field}: {first['input']!r} is not allowed: {first['msg'][0].lower()}{first['msg'][1:]}.{more}"


def _section_at(model: type[BaseModel], loc: list[str]) -> type[BaseModel]:
    for part in loc:
        field = model.model_fields.get(part)
        if field is None:
            break
        kinds = [field.annotation, *get_args(field.annotation)]
        found = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not found:
            break
        model = found[0]
    return model
