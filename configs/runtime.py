"""The section `runtime`: how a run is executed, on which machines; nothing here may change a result."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal, final

from pydantic import Field, field_validator, model_validator

from configs.errors import InputError
from configs.section import Positive, Section

REST = ""  # the class of hospitals that no class names

Gpus = Annotated[float, Field(ge=0, le=64)]
Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]


def _whole_or_share(value: float | None) -> float | None:
    if value is not None and value > 1 and value != int(value):
        raise ValueError(f"{value:g} GPUs: Ray gives a share of one GPU (up to 1) or whole ones; round it")
    return value


@final
class HospitalClass(Section):
    """Hospitals that need other machines than the rest, and what each of their workers takes there."""

    hospitals: tuple[str, ...] = Field(min_length=1, description="names, or patterns such as 'hospital-0*'")
    workers: int = Field(default=1, ge=1, description="workers that take turns with these hospitals")
    cpus: Positive | None = Field(default=None, description="of each worker; empty: cpus_per_hospital")
    gpus: Gpus | None = Field(default=None, description="of each worker, a share or whole; empty: gpus_per_hospital")
    strategy: Strategy = Field(default="PACK", description="how Ray puts the workers on nodes")
    resources: dict[str, Positive] = Field(
        default={}, description="custom resources of each worker: pins the class to the nodes that have them"
    )

    _gpus = field_validator("gpus")(_whole_or_share)

    @field_validator("resources")
    @classmethod
    def _custom(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name.lower() in ("cpu", "cpus", "gpu", "gpus"):
                raise ValueError(f"'{name}' has a key of its own; set {name.lower().rstrip('s')}s")
        return value


@final
class RaySettings(Section):
    """An existing Ray cluster: where it is, what runs where in it, and where its nodes have their data."""

    address: str | None = Field(default=None, description="e.g. 'auto' or '10.0.0.1:6379'; empty: start one here")
    classes: dict[str, HospitalClass] = Field(
        default={}, description="by name; a hospital belongs to the first that names it, the rest to none"
    )
    roots: dict[str, str] = Field(
        default={}, description="folder of the dataset on a node, by its host name, address or custom resource"
    )
    patience: Positive = Field(default=20.0, description="seconds that the cluster has to find room for the workers")

    @field_validator("classes")
    @classmethod
    def _named(cls, value: dict[str, HospitalClass]) -> dict[str, HospitalClass]:
        if REST in value:
            raise ValueError("a class needs a name")
        return value

    @property
    def placed(self) -> bool:
        """Whether workers are given places on a cluster's nodes, and have to show that these are fit."""
        return bool(self.address or self.classes or self.roots)

    def sort(self, hospitals: Sequence[str], federation: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the class of each of these hospitals, REST for those that no class names.

        Args:
            hospitals: those that train, in the order of the deal.
            federation: all hospitals that a class may name, where some of them do not train in this run
                (mechanisms `pooled` and `alone`).

        Raises:
            InputError: a class names a hospital that does not exist, or is left with none.
        """
        known = list(dict.fromkeys([*hospitals, *federation]))
        taken: dict[str, str] = {}
        for name, asked in self.classes.items():
            own = 0
            for pattern in asked.hospitals:
                found = [h for h in known if fnmatchcase(h, pattern)]
                if not found:
                    raise InputError(_nobody(f"runtime.ray.classes.{name}.hospitals", pattern, known))
                for hospital in found:
                    own += taken.setdefault(hospital, name) == name
            if not own:
                raise InputError(
                    f"runtime.ray.classes.{name}.hospitals: all of them belong to classes before it; "
                    f"a hospital belongs to the first class that names it, so move '{name}' up or leave it out."
                )
        return tuple(taken.get(hospital, REST) for hospital in hospitals)


def _nobody(field: str, pattern: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern.strip("*?"), known, n=1, cutoff=0.4)
    few = ", ".join(known[:6]) + (", ..." if len(known) > 6 else "")
    hint = f"did you mean '{near[0]}'?" if near else f"there are {few}."
    return f"{field}: '{pattern}' is none of the {len(known)} hospitals; {hint}"


@final
class RuntimeSettings(Section):
    """How the run is executed. Nothing here may change a result."""

    engine: Literal["inline", "ray", "flower"] = "inline"
    workers: int | None = Field(default=None, ge=1, description="Ray actors; empty: as many as fit")
    cpus_per_hospital: Positive = 1.0
    gpus_per_hospital: Gpus = Field(default=0.0, description="a share of one GPU up to 1, or whole GPUs")
    retries: int = Field(default=2, ge=0, description="how often an unanswered message is sent again")
    timeout: Positive = Field(default=3600.0, description="seconds that a round waits for its replies")
    ray: RaySettings = RaySettings()

    _gpus = field_validator("gpus_per_hospital")(_whole_or_share)

    @model_validator(mode="after")
    def _known_to_the_engine(self) -> "RuntimeSettings":
        if self.engine == "flower":
            for key in ("classes", "roots"):
                if getattr(self.ray, key):
                    raise ValueError(f"ray.{key}: Flower's own engine knows none; set runtime.engine: ray")
        return self
