"""The coordinator's Flower app. The round loop is ours, so that it can be read at one look and survives anything."""

from functools import partial

from flwr.app import ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp

import tasks
from configs import RunStoppedError, derive
from server.adversary.chair import Chair
from server.adversary.public import load_public
from server.averaging import RunningAverage
from server.checkpoints import Checkpoints, write_arrays
from server.events import EventLog
from server.exchange import exchange
from server.model import FlatModel
from server.optimizer import ServerOptimizer
from server.roster import introduce
from server.settings import ServerSettings
from server.strategy import HospitalStrategy

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation: configure, send, receive, retry, aggregate, quorum, checkpoint; from where it stopped."""
    settings = ServerSettings.from_config(context.run_config)
    experiment, runtime = settings.experiment, settings.experiment.runtime
    events = EventLog(settings.folder / "events.jsonl")
    chair = Chair(experiment.adversary, experiment.attacked_rounds, load_public(settings.public_data), settings.views)
    model = FlatModel.fresh(tasks.get(experiment.task).spec, derive(settings.root, "model"))
    model = FlatModel(*chair.start(model.spec, model.named(model.initial)))
    optimizer = ServerOptimizer(experiment.training, model.initial)
    average = RunningAverage(experiment.training.averaging, model.size)
    checkpoints = Checkpoints(settings.folder / "checkpoints", settings.digest)
    members = introduce(grid, experiment, events)
    strategy = HospitalStrategy(settings, members, model, optimizer, chair, events)
    strategy.summary()
    done = 0
    if (kept := checkpoints.load()) is not None:
        done, state = kept
        optimizer.restore(state)
        average.restore(state)
        events.write("resumed", round=done)
    names = {member.node: member.hospital for member in members.values()}

    for server_round in range(done + 1, experiment.training.rounds + 1):
        events.write("round", round=server_round, asked=[m.hospital for m in strategy.cohort(server_round)])
        reasons: list[str] = []

        def lost(node: int, reason: str, again: bool, at: int = server_round, to: list[str] = reasons) -> None:
            short = reason.strip().splitlines()[-1] if reason.strip() else "lost"
            to.append(f"{names[node]}: {short}")
            events.write("lost", round=at, hospital=names[node], reason=short, again=again)

        messages = strategy.configure_train(server_round, strategy.arrays(), ConfigRecord(), grid)
        ask = partial(exchange, grid, retries=runtime.retries, timeout=runtime.timeout, lost=lost)
        arrays, metrics = strategy.collect(server_round, messages, ask)
        if arrays is None:
            why = reasons[-1] if reasons else "they declined; see events.jsonl"
            raise RunStoppedError(
                f"quorum lost in round {server_round}: {metrics['releases']} releases where "
                f"{metrics['needed']} are needed ({why})."
            )
        average.add(optimizer.weights)
        if server_round in experiment.evaluated_rounds:
            handed_out = model.named(average.value())
            write_arrays(checkpoints.evaluation(server_round), handed_out, {"round": str(server_round)})
        checkpoints.save(server_round, {**optimizer.state(), **average.state()})
        events.write("finished", round=server_round, releases=int(str(metrics["releases"])))

    handed_out = model.named(average.value())
    terms = {name: member.terms for name, member in members.items()}
    asked = experiment.cohort_size(len(members)) / len(members)
    first = (model.spec, model.named(model.initial))
    chair.finish(first, handed_out, terms, experiment.training.rounds, strategy.server_noise(members), asked)
    write_arrays(settings.folder / "model.safetensors", handed_out, {"experiment": settings.digest})
