"""One run, watched from every chair: what each sees of the traffic, and what it does not."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from configs import HOSPITALS, SERVER, Experiment, InputError, root_of
from configs.adversary import AdversarySettings
from server.adversary.base import Observation, Update, View
from server.adversary.recording import recorded
from server.adversary.views import load_view
from server.checkpoints import read_arrays
from simulation.run import Run, simulate
from simulation.setup import prepare

Make = Callable[..., Experiment]

SEED = 987_654_321
HONEST = {"placement": "server", "attacks": ["mean_image"], "rounds": [2, 3]}
AVERAGE = {"rounds": 3, "server_optimizer": "average", "learning_rate": 0.1}


@pytest.fixture(scope="module", params=[1, 3], ids=["FedSGD", "FedAvg"])
def run(request: pytest.FixtureRequest, small: Make, tmp_path_factory: pytest.TempPathFactory) -> Run:
    experiment = small(training={**AVERAGE, "local_steps": request.param}, adversary=HONEST).with_seed(SEED)
    return simulate(experiment, tmp_path_factory.mktemp("chairs") / "run")


def seen_from(run: Run, placement: str, **more: object) -> View:
    return load_view(run.folder / "views", AdversarySettings.model_validate({"placement": placement, **more}))


def singles(run: Run) -> dict[tuple[int, str], Observation]:
    return {(o.round, o.hospital): o for o, _ in recorded(run.folder / "views", "single")}


def leaves(value: object) -> Iterator[object]:
    """Everything that hangs on an object, at any depth."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from leaves(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, (tuple, list, frozenset)):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value


CHAIRS = ("wire", "server", "malicious_server", "hospital", "release", "worst_case")


@pytest.mark.parametrize("placement", CHAIRS)
def test_no_view_holds_a_seed_a_record_or_a_count_of_what_was_drawn(run: Run, placement: str) -> None:
    view = seen_from(run, placement)
    assert view.traces
    setup = prepare(Experiment.model_validate(run.summary["experiment"]))
    secrets = {SEED, root_of(SEED, HOSPITALS), root_of(SEED, SERVER)}
    ids = {str(name) for hospital in setup.deal.hospitals for name in hospital.records.ids}
    known = {h.name for h in setup.deal.hospitals}
    for value in leaves(view):
        assert value not in secrets if not isinstance(value, np.ndarray) else True
        if isinstance(value, str):
            assert not any(secret in value for secret in secrets if isinstance(secret, str))
            assert value in known or value not in ids
        elif isinstance(value, np.ndarray):
            assert value.dtype in (np.float32, np.float64)  # no uint8 image and no int64 row number
    fields = {field.name for field in dataclasses.fields(Observation)}
    assert fields == {"round", "hospital", "spec", "weights", "release", "terms", "members", "rounds"}


def test_the_wire_carries_one_hospital(run: Run) -> None:
    view = seen_from(run, "wire", seat="vidir_modern")
    assert [trace.hospital for trace in view.traces] == ["vidir_modern"]
    assert view.traces[0].rounds == (2, 3)
    with pytest.raises(ValueError, match=r"adversary\.seat: 'nowhere' is none of the hospitals"):
        seen_from(run, "wire", seat="nowhere")


def test_the_server_sees_every_hospital_in_every_attacked_round(run: Run) -> None:
    view = seen_from(run, "server")
    assert len(view.traces) == 4
    assert {trace.rounds for trace in view.traces} == {(2, 3)}


def test_a_hospital_sees_the_sum_of_the_others_and_no_single_one(run: Run) -> None:
    own = "rosendahl"
    (trace,) = seen_from(run, "hospital", seat=own).traces
    assert own not in trace.members
    assert len(trace.members) == 3
    traffic = singles(run)
    units = {row["name"]: row["units"] for row in run.summary["hospitals"]}
    for seen in trace.observations:
        others = [traffic[seen.round, h] for h in trace.members]
        weights = [1.0] * 3
        if seen.terms.local_steps > 1:
            total = sum(units[h] for h in trace.members)
            weights = [units[h] / total for h in trace.members]
        for name, value in seen.release.items():
            expected = sum(w * other.release[name] for w, other in zip(weights, others, strict=True))
            scale = max(np.abs(other.release[name]).max() for other in others)
            assert np.abs(value - expected).max() < 1e-3 * scale + 1e-6  # what float32 models leave of it
        for other in others:
            assert _distance(seen.release, other.release) > 0.05
    batches = [traffic[3, h].terms.expected_batch for h in trace.members]
    assert trace.last.terms.expected_batch == pytest.approx(sum(batches))


def test_colluders_take_their_share_out_too(run: Run) -> None:
    (trace,) = seen_from(run, "hospital", seat="rosendahl", colluders=2).traces
    assert len(trace.members) == 1
    traffic = singles(run)
    for seen in trace.observations:
        assert _distance(seen.release, traffic[seen.round, trace.members[0]].release) < 1e-2
    with pytest.raises(ValueError, match="nobody is left to attack"):
        seen_from(run, "hospital", seat="rosendahl", colluders=3)


def test_the_release_is_the_difference_of_the_last_and_the_first_model(run: Run) -> None:
    (trace,) = seen_from(run, "release").traces
    assert len(trace.observations) == 1
    assert trace.rounds == (1, 2, 3)
    final, _ = read_arrays(run.folder / "model.safetensors")
    for name, value in trace.last.release.items():
        np.testing.assert_array_equal(trace.last.weights[name] + value, final[name].astype(np.float64))


def test_a_plain_run_has_no_secure_sum_to_watch(run: Run, small: Make) -> None:
    assert seen_from(run, "aggregate").traces == ()
    with pytest.raises(ValueError, match=r"set training\.secure_sum"):
        small(adversary={"placement": "aggregate"})
    with pytest.raises(ValueError, match="reads single releases"):
        small(training={"secure_sum": True}, adversary={"placement": "server"})


def test_seats_that_cannot_be_taken_are_refused(small: Make) -> None:
    def asked(training: dict[str, object] | None = None, **adversary: object) -> Experiment:
        chosen = {"attacks": ["mean_image"], **adversary}
        return small(training=training or AVERAGE, adversary=chosen)

    for experiment, says in (
        (asked(placement="hospital", training={"server_optimizer": "nadam"}), "training.server_optimizer"),
        (asked(placement="hospital", colluders=3), "nobody is left"),
        (asked(placement="server", colluders=1), "adversary.colluders"),
        (asked(placement="server", seat="rosendahl"), "adversary.seat"),
        (asked(placement="wire", seat="nowhere"), "none of the hospitals"),
    ):
        with pytest.raises(InputError, match=says):
            prepare(experiment)


def _distance(one: Update, other: Update) -> float:
    first = np.concatenate([one[name].ravel() for name in sorted(one)])
    second = np.concatenate([other[name].ravel() for name in sorted(one)])
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))
