"""The federation's strategy: who is asked what in a round, and what becomes of the releases."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any, cast, final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from configs import derive
from server.adversary.base import Addressee, PublicTerms
from server.adversary.chair import Chair
from server.aggregation import FixedPointSum
from server.central import CentralNoise, central_plan
from server.events import EventLog
from server.model import FlatModel
from server.optimizer import ServerOptimizer
from server.roster import Member
from server.secure_sum import Ask, SecureSum, SumRound
from server.settings import ServerSettings


@final
class HospitalStrategy(Strategy):
    """FedSGD, FedAvg and FedProx over named hospitals, with exact sums and a chair for the adversary.

    Only the agreed parameters are aggregated, whatever the adversary had broadcast beside them. Weights are
    constants of the plan (expected batches for FedSGD, units for FedAvg), never what a hospital happened to draw.
    """

    def __init__(
        self,
        settings: ServerSettings,
        members: dict[str, Member],
        model: FlatModel,
        optimizer: ServerOptimizer,
        chair: Chair,
        events: EventLog,
    ) -> None:
        self._settings = settings
        self._training = settings.experiment.training
        self._members = members
        self._model = model
        self._optimizer = optimizer
        self._chair = chair
        self._events = events
        self._central: CentralNoise | None = None
        if settings.experiment.privacy.mechanism == "central":
            plan = central_plan(settings.experiment, len(members))
            self._central = CentralNoise(plan, settings.root, settings.digest[:16], settings.folder)

    def cohort(self, server_round: int) -> list[Member]:
        """Return the hospitals that are asked in a round, in the order of their names.

        A cohort has the size that is set; under `central` each hospital is drawn by itself, as its price assumes.
        """
        members = list(self._members.values())
        size = self._training.cohort
        if size is None or size >= len(members):
            return members
        drawer = np.random.default_rng(derive(self._settings.root, "cohort", server_round))
        if self._central is not None:
            drawn = drawer.random(len(members)) < self._central.plan.sample_rate
            return [member for member, asked in zip(members, drawn, strict=True) if asked]
        return [members[i] for i in sorted(drawer.choice(len(members), size=size, replace=False))]

    def needed(self, server_round: int = 1) -> int:
        """Return how many releases a round needs to count."""
        if self._central is not None:
            return self._training.fewest_of(len(self.cohort(server_round)))
        if self._training.secure_sum:
            return self._settings.experiment.sum_threshold(len(self._members), len(self.cohort(1)))
        return self._training.fewest_releases(len(self._members))

    def collect(
        self, server_round: int, messages: Iterable[Message], ask: Ask
    ) -> tuple[ArrayRecord | None, MetricRecord]:
        """Send a round's messages with `ask`, take what comes back, one by one or as a secure sum, and the step."""
        if not self._training.secure_sum:
            return self.aggregate_train(server_round, ask(messages))
        names = {member.node: member.hospital for member in self._members.values()}
        broadcasts = {names[message.metadata.dst_node_id]: message for message in messages}

        def threshold(taking_part: int) -> int:
            return self._settings.experiment.sum_threshold(len(self._members), taking_part)

        def declined(hospital: str, reason: str) -> None:
            self._events.write("declined", round=server_round, hospital=hospital, reason=reason)

        kept = self._settings.folder / "secure-sum.json"
        return self.aggregate_sum(server_round, SumRound(broadcasts, ask, threshold, declined, kept).run())

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Make one message per hospital of the cohort: the round, the model as JSON, and its weights."""
        honest = {name: array.numpy() for name, array in arrays.items()}
        places = {name: place for place, name in enumerate(self._members)}
        messages: list[Message] = []
        packed: tuple[object, ArrayRecord] = (honest, arrays)
        for member in self.cohort(server_round):
            to = Addressee(member.hospital, places[member.hospital], len(places))
            spec, weights = self._chair.broadcast(server_round, self._model.spec, honest, to)
            if packed[0] is not weights:
                packed = (weights, ArrayRecord({n: Array(np.asarray(w)) for n, w in weights.items()}))
            order = ConfigRecord({**config, "round": server_round, "spec": spec.to_json()})
            content = RecordDict({"order": order, "weights": packed[1]})
            messages.append(Message(content, dst_node_id=member.node, message_type="train", group_id=str(server_round)))
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord | None, MetricRecord]:
        """Add the releases as they come and take the server's step, if the quorum is met.

        Returns:
            (the new weights, how many hospitals released and how many are needed); (None, ...) if the quorum is not
            met.
        """
        total = FixedPointSum(self._model.size)
        released: set[str] = set()
        open_for = {m.hospital for m in self.cohort(server_round)}
        for reply in replies:
            reason = self._add(server_round, reply, total, open_for)
            record = cast(ConfigRecord, reply.content["reply"])
            hospital = str(record["hospital"])
            if reason is not None:
                self._events.write("declined", round=server_round, hospital=hospital, reason=reason)
                continue
            released.add(hospital)
            open_for.discard(hospital)
            self._events.write("released", round=server_round, hospital=hospital)
        needed = self.needed(server_round)
        metrics = MetricRecord({"releases": len(released), "needed": needed})
        if len(released) < needed:
            return None, metrics
        self._step(server_round, total.total(), sorted(released))
        return self.arrays(), metrics

    def aggregate_sum(self, server_round: int, summed: SecureSum) -> tuple[ArrayRecord | None, MetricRecord]:
        """Take the server's step along a secure sum, unless the round is void; returns as `aggregate_train`."""
        metrics = MetricRecord({"releases": summed.left, "needed": summed.needed})
        released = list(summed.hospitals)
        if not released:
            return None, metrics
        try:
            vector = self._model.flat(summed.total)
        except ValueError as error:
            self._events.write("declined", round=server_round, hospital="the sum", reason=f"rejected: {error}")
            return None, metrics
        for hospital in released:
            self._events.write("released", round=server_round, hospital=hospital)
        self._chair.observe_sum(server_round, self._terms(released), self._observed(summed.total, released))
        self._step(server_round, vector, released)
        return self.arrays(), MetricRecord({**metrics, "releases": len(released)})

    def _observed(
        self, total: Mapping[str, NDArray[np.float64]], released: list[str]
    ) -> dict[str, NDArray[np.float64]]:
        """Return a sum as chairs record it: FedSGD's as it is, FedAvg's as the weighted mean."""
        weights = [self._weight(self._members[h])[0] for h in released]
        divisor = sum(weights) if self._training.local_steps > 1 else 1.0
        return {name: value / divisor for name, value in total.items()}

    def _terms(self, released: list[str]) -> dict[str, PublicTerms]:
        return {h: self._members[h].terms for h in released}

    def _step(self, server_round: int, total: NDArray[np.float64], released: list[str]) -> None:
        """Take the server's step along the sum of the weighted releases; let the chair see it, with what undoes it."""
        before = self._named()
        weights = {h: self._weight(self._members[h]) for h in released}
        divisor = sum(share for _, share in weights.values())
        mean = total / divisor if self._central is None else self._noisy(server_round, total, released, before)
        self._optimizer.step(mean)
        training = self._training
        rate = training.server_learning_rate if training.local_steps > 1 else -training.learning_rate
        undone = training.server_optimizer == "average" and self._central is None
        factors = {h: factor for h, (factor, _) in weights.items()}
        self._chair.after(
            server_round,
            before,
            self._named(),
            self._terms(released),
            factors,
            divisor / rate if undone else None,
            self.server_noise(released),
        )

    def _noisy(
        self, server_round: int, total: NDArray[np.float64], released: list[str], before: Mapping[str, NDArray[Any]]
    ) -> NDArray[np.float64]:
        assert self._central is not None
        digest = hashlib.sha256()
        for name in sorted(before):
            digest.update(name.encode() + before[name].tobytes())
        return self._central.mean(server_round, total, released, digest.hexdigest())

    def server_noise(self, hospitals: Iterable[str]) -> float:
        """Return the deviation of the server's own noise, in units of these hospitals' sum of gradients; 0 without."""
        if self._central is None:
            return 0.0
        training = self._training
        batch = sum(self._members[h].terms.expected_batch for h in hospitals)
        noise = self._central.plan.noise_on_mean * batch
        if training.local_steps == 1:
            return noise
        # A difference of weights is read as that many noisy steps; their noise adds in squares.
        return noise * training.server_learning_rate / training.learning_rate / math.sqrt(training.local_steps)

    def arrays(self) -> ArrayRecord:
        """Return the global weights as float32 arrays by name."""
        return ArrayRecord({name: Array(value) for name, value in self._named().items()})

    def _named(self) -> dict[str, NDArray[np.float32]]:
        return self._model.named(self._optimizer.weights)

    def _weight(self, member: Member) -> tuple[float, float]:
        """Return (factor on a hospital's release, its share of the divisor)."""
        if self._training.local_steps == 1:
            return 1.0, member.terms.expected_batch
        return float(member.units), float(member.units)

    def _add(self, server_round: int, reply: Message, total: FixedPointSum, open_for: set[str]) -> str | None:
        """Add one reply to the sum; return the reason if it is not a release that counts."""
        record = cast(ConfigRecord, reply.content["reply"])
        if "declined" in record:
            return str(record["declined"])
        hospital = str(record["hospital"])
        if hospital not in open_for or self._members[hospital].node != reply.metadata.src_node_id:
            return "rejected: not asked, or a second release of the round"
        if int(cast(int, record["round"])) != server_round:
            return f"rejected: a release of round {record['round']}"
        update = {n: a.numpy() for n, a in cast(ArrayRecord, reply.content["release"]).items()}
        member = self._members[hospital]
        try:
            vector = self._model.flat(update)
            if self._central is None:
                total.add(vector * self._weight(member)[0])
            else:
                alone = max(member.terms.expected_batch, 1e-12) if self._training.local_steps == 1 else 1.0
                total.add(self._central.clipped(vector / alone))
        except ValueError as error:
            return f"rejected: {error}"
        self._chair.observe(server_round, hospital, member.terms, cast("dict[str, NDArray[np.float64]]", update))
        return None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask for nothing: metrics of hospitals' own records would leak outside the ledger."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was asked, so nothing is aggregated."""
        return None

    def summary(self) -> None:
        """Log who takes part."""
        self._events.write("strategy", hospitals=sorted(self._members), quorum=self.needed())
