"""The command `fedward`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from configs import FedwardError, InputError, Study
from simulation import cli_audit, cli_bounds, cli_budgets, cli_data, cli_placements, cli_privacy
from simulation.cli_options import Config, Json, Settings, console, folder_of, load_config, print_json

app = typer.Typer(
    name="fedward",
    help="Simulate hospitals that train together under differential privacy, and what an adversary gets back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
)
app.command("epsilon")(cli_privacy.epsilon)
app.command("noise")(cli_privacy.noise)
app.command("ledger")(cli_privacy.ledger)
app.command("bounds")(cli_bounds.bounds)
app.command("audit")(cli_audit.audit)
app.command("budgets")(cli_budgets.budgets)
app.command("placements")(cli_placements.placements)
app.add_typer(cli_data.app, name="data")

INTERRUPTED = 130

Out = Annotated[Path | None, typer.Option("--out", help="Folder of the results.")]
Engine = Annotated[str | None, typer.Option("--engine", help="inline, ray or flower.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a run of the same settings stopped.")]


@app.command()
def simulate(
    config: Config,
    settings: Settings = None,
    out: Out = None,
    as_json: Json = False,
    engine: Engine = None,
    resume: Resume = False,
) -> None:
    """Run one federation with its adversary, scored and reported.

    Example: fedward simulate demo --set privacy.mechanism=local --set privacy.epsilon=8
    """
    from simulation.engines.running import warm_up

    loaded = load_config(config, settings, engine)
    experiment = loaded.experiment if isinstance(loaded, Study) else loaded
    folder = folder_of(out, config)
    warm_up(experiment, folder, meanwhile="simulation.run")
    from simulation.run import simulate as run_experiment
    from simulation.showing import show_run

    shown = console()
    run = run_experiment(experiment, folder, resume=resume, console=shown)
    if as_json:
        print_json(run.summary)
    show_run(run, shown)


@app.command()
def attack(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    attacks: Annotated[list[str] | None, typer.Option("--attack", help="An attack's name; repeatable.")] = None,
    placement: Annotated[str | None, typer.Option(help="Another seat, from which the same traffic is watched.")] = None,
    as_json: Json = False,
) -> None:
    """Attack the views that a run recorded again, without training.

    Example: fedward attack runs/demo --attack inversion --placement wire
    """
    from server.adversary.placements import PLACEMENTS
    from server.adversary.registry import ATTACKS
    from simulation.run import attack_again
    from simulation.showing import show_run

    unknown = [a for a in attacks or [] if a not in ATTACKS]
    if unknown:
        raise InputError(f"--attack {unknown[0]}: unknown attack; choose from {', '.join(ATTACKS)}.")
    if placement is not None and placement not in PLACEMENTS:
        raise InputError(f"--placement {placement}: unknown placement; choose from {', '.join(PLACEMENTS)}.")
    again = attack_again(run, attacks or [], placement)  # type: ignore[arg-type]
    if as_json:
        print_json(again.summary["attacks"])
    show_run(again, console())


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs or studies.")],
    out: Out = None,
) -> None:
    """Build a report again; several runs give one page side by side."""
    from simulation.report.build import build_comparison, build_report

    missing = [r for r in runs if not (r / "summary.json").is_file()]
    if missing:
        raise InputError(f"{missing[0]}: has no summary.json; it is not the folder of a finished run.")
    path = build_report(runs[0]) if len(runs) == 1 else build_comparison(runs, out or Path("comparison.html"))
    sys.stdout.write(f"{path}\n")


def main() -> None:
    """Run the command line: one sentence and an exit code where something is wrong, never a traceback."""
    error = Console(stderr=True)
    try:
        if app(standalone_mode=False) == INTERRUPTED:  # typer returns the code of an interruption instead of raising it
            raise KeyboardInterrupt
    except FedwardError as problem:
        error.print(str(problem), style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(problem.exit_code)
    except KeyboardInterrupt:
        error.print("Interrupted; go on with --resume and the same --out.")
        sys.exit(INTERRUPTED)
    except Exception as problem:  # click's own errors carry a sentence and a code
        code = getattr(problem, "exit_code", None)
        if code is None:
            raise
        shown = getattr(problem, "format_message", lambda: "")()
        if shown:
            error.print(shown, style="red", highlight=False, markup=False)
        sys.exit(code)


if __name__ == "__main__":
    main()
