"""Commands that price: `fedward epsilon`, `fedward noise`, `fedward ledger`."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from configs import InputError
from simulation.cli_options import Json, print_json

if TYPE_CHECKING:  # scipy takes longer to import than all else that a command needs to start
    import privacy

Delta = Annotated[float, typer.Option(help="delta in (0, 1)")]
Rate = Annotated[float, typer.Option(help="probability that a record is drawn in a step")]
Records = Annotated[
    int,
    typer.Option(
        "--records-per-unit", min=1, help="Price a lesion, scan or patient of so many images, drawn one by one."
    ),
]
Steps = Annotated[int, typer.Option(help="number of noisy steps")]


def finite(value: float | None) -> float | None:
    """Return a number for JSON: null where nothing is claimed."""
    return value if value is not None and math.isfinite(value) else None


def as_content(price: "privacy.Epsilon") -> dict[str, Any]:
    """Return a price as JSON content."""
    return {
        "lower": finite(price.lower),
        "estimate": finite(price.estimate),
        "upper": finite(price.upper),
        "method": price.method,
        "opacus_rdp": finite(price.opacus_rdp),
    }


def epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="noise standard deviation / clipping norm")],
    sample_rate: Rate,
    steps: Steps,
    delta: Delta,
    records: Records = 1,
    as_json: Json = False,
) -> None:
    """Price DP-SGD: the epsilon of so many Poisson-subsampled Gaussian steps, add/remove one record (or unit)."""
    import privacy

    try:
        price = privacy.unit_epsilon(
            noise_multiplier=noise_multiplier, sample_rate=sample_rate, steps=steps, delta=delta, records=records
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    print_json(as_content(price))


def noise(
    epsilon: Annotated[float, typer.Option(help="the budget")],
    delta: Delta,
    sample_rate: Rate,
    steps: Steps,
    as_json: Json = False,
) -> None:
    """Calibrate: the smallest noise multiplier that keeps a budget."""
    import privacy

    try:
        value = privacy.noise_multiplier(epsilon=epsilon, delta=delta, sample_rate=sample_rate, steps=steps)
    except ValueError as error:
        raise InputError(str(error)) from error
    print_json({"noise_multiplier": value})


def ledger(
    files: Annotated[list[Path], typer.Argument(help="Ledger files of one patient's hospitals or runs.")],
    delta: Annotated[float, typer.Option(help="delta in (0, 1)")] = 1e-5,
    records: Records = 1,
    as_json: Json = False,
) -> None:
    """Check the chain of ledgers and price them together: what somebody in all of them has spent."""
    import privacy
    from privacy.ledger import verify

    spends: list[privacy.Spend] = []
    unprotected = 0
    rows: list[dict[str, Any]] = []
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: no such ledger file.")
        try:
            own = [entry.spend for entry in verify(path)]
        except (privacy.LedgerError, ValueError) as error:
            raise InputError(str(error)) from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
        spends += [s for s in own if s is not None]
        unprotected += sum(s is None for s in own)
        rows.append({"file": str(path), "releases": len(own), "unprotected": sum(s is None for s in own)})
    try:
        price = None if unprotected else as_content(privacy.compose(spends, delta=delta, records=records))
    except ValueError as error:
        raise InputError(str(error)) from error
    print_json({"ledgers": rows, "delta": delta, "epsilon": price})
