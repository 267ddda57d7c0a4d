"""Who takes part: hospitals introduce themselves once, with their public terms."""

from dataclasses import dataclass
from typing import cast, final

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

import tasks
from configs import Experiment, RunStoppedError
from server.adversary.base import PublicTerms
from server.events import EventLog
from server.exchange import exchange


@final
@dataclass(frozen=True)
class Member:
    """One hospital as the coordinator knows it."""

    hospital: str
    node: int
    units: int
    terms: PublicTerms


def introduce(grid: Grid, experiment: Experiment, events: EventLog) -> dict[str, Member]:
    """Ask every node who it is and return the members by name, sorted.

    Raises:
        RunStoppedError: if a hospital cannot take part; the sentence carries its reason.
    """
    reasons: dict[int, str] = {}

    def lost(node: int, reason: str, again: bool) -> None:
        reasons[node] = reason

    messages = [
        Message(RecordDict(), dst_node_id=node, message_type="query.introduce", group_id="0")
        for node in sorted(grid.get_node_ids())
    ]
    expected = len(messages)
    members: list[Member] = []
    runtime = experiment.runtime
    for reply in exchange(grid, messages, retries=runtime.retries, timeout=runtime.timeout, lost=lost):
        member = _member(experiment, reply)
        members.append(member)
        record = cast(ConfigRecord, reply.content["reply"])
        events.write(
            "introduced",
            hospital=member.hospital,
            units=member.units,
            noise_multiplier=member.terms.noise_multiplier,
            sample_rate=member.terms.sample_rate,
            self_check=float(cast(float, record["self_check"])),
        )
    if len(members) < expected:
        reason = next(iter(reasons.values()), "no reply").strip().splitlines()[-1]
        raise RunStoppedError(f"{expected - len(members)} of {expected} hospitals cannot take part: {reason}")
    least = experiment.hospitals.smallest_sum
    if experiment.training.secure_sum and len(members) < least:
        raise RunStoppedError(f"{len(members)} hospitals take part, and hospitals refuse a secure sum below {least}.")
    return {m.hospital: m for m in sorted(members, key=lambda m: m.hospital)}


def _member(experiment: Experiment, reply: Message) -> Member:
    record = cast(ConfigRecord, reply.content["reply"])
    clip = float(cast(float, record["clipping_norm"]))
    local = experiment.training.local_steps
    terms = PublicTerms(
        clipping_norm=None if clip < 0 else clip,
        noise_multiplier=float(cast(float, record["noise_multiplier"])),
        sample_rate=float(cast(float, record["sample_rate"])),
        local_steps=local,
        expected_batch=float(cast(float, record["expected_batch"])),
        learning_rate=experiment.training.learning_rate if local > 1 else 0.0,
        loss=tasks.get(experiment.task).loss,
    )
    units = int(cast(int, record["units"]))
    return Member(str(record["hospital"]), reply.metadata.src_node_id, units, terms)
