"""Whether recorded traffic can be attacked again, by other attacks or from another seat."""

from collections.abc import Sequence

from pydantic import ValidationError

from configs import InputError
from configs.adversary import AttackName, Placement
from server.adversary.base import BROADCAST, START
from server.adversary.registry import attack
from server.adversary.views import load_view
from server.settings import ServerSettings
from simulation.folder import RunFolder
from simulation.seating import check_adversary
from simulation.setup import Setup


def check_again(setup: Setup, folder: RunFolder, placement: Placement, names: Sequence[AttackName]) -> None:
    """Refuse what cannot be tried on a run's recorded traffic, in one sentence.

    Raises:
        InputError: for no attack, a seat that may not do or see enough or of which nothing was recorded, or an attack
            that must have changed the model that was sent and had not when the traffic was recorded.
    """
    experiment = setup.experiment
    if not names:
        raise InputError("--attack: this run tried no attack of its own; name one.")
    for name in names:
        planted = attack(name, experiment.adversary).needs & {BROADCAST, START}
        if planted and name not in experiment.adversary.attacks:
            raise InputError(
                f"--attack {name}: it reads a model that it changed itself, and this run was recorded without it; "
                f"run again with adversary.attacks: [{name}]."
            )
    changes: dict[str, object] = {"placement": placement, "attacks": tuple(names)}
    if placement != "hospital":
        changes["colluders"] = 0
    try:
        seated = experiment.updated(adversary=changes)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(f"--placement {placement}: {first.get('ctx', {}).get('error', first['msg'])}.") from None
    check_adversary(seated, setup.task, [h.name for h in setup.deal.hospitals])
    if not load_view(ServerSettings.of(experiment, folder.path).views, seated.adversary).traces:
        raise InputError(f"--placement {placement}: nothing that this seat sees was recorded in {folder.path}.")
