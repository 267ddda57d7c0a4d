"""The hospital's Flower app: it introduces itself, and it answers a round with a release or with its reason not to.

With a secure sum a round has five phases, `query.advertise`, `query.share`, `train.mask`, `query.agree` and
`query.unmask`, and what leaves is the release under masks.
"""

import os
from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from clients.broadcast import broadcast_digest
from clients.secure_sum import Summand
from clients.site import RefusalError, Site, site
from clients.summing import party, released_vector
from tasks.models import ModelSpec

SETTINGS_VARIABLE = "FEDWARD_SITE_SETTINGS"

app = ClientApp()


def _settings(context: Context) -> str:
    return str(context.node_config.get("site-settings") or os.environ[SETTINGS_VARIABLE])


def _site(context: Context) -> tuple[Site, int]:
    partition = int(context.node_config["partition-id"])
    return site(_settings(context), partition), partition


def _reply(partition: int, hospital: str, **content: str | float | int) -> ConfigRecord:
    return ConfigRecord({"partition": partition, "hospital": hospital, **content})


@app.query("introduce")
def introduce(message: Message, context: Context) -> Message:
    """Answer with the hospital's public terms, after the self-check of its gradients."""
    here, partition = _site(context)
    plan = here.plan
    record = _reply(
        partition,
        plan.hospital,
        units=plan.units,
        sample_rate=plan.sample_rate,
        expected_batch=plan.expected_batch,
        clipping_norm=-1.0 if plan.clipping_norm is None else plan.clipping_norm,
        noise_multiplier=plan.added,
        self_check=here.introduce(),
    )
    return Message(RecordDict({"reply": record}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a round with a release, or decline with the reason."""
    here, partition = _site(context)
    round_number, text, weights = _broadcast(message)
    try:
        if here.settings.experiment.training.secure_sum:
            raise RefusalError("this federation releases to a secure sum only")
        spec = ModelSpec.from_json(text)
        digest = broadcast_digest(round_number, text, weights)
        tensors = {name: torch.from_numpy(value.copy()) for name, value in weights.items()}
        release = here.release(round_number, spec, tensors, digest)
    except (RefusalError, ValueError) as refusal:
        record = _reply(partition, here.plan.hospital, round=round_number, declined=str(refusal))
        return Message(RecordDict({"reply": record}), reply_to=message)
    record = _reply(partition, here.plan.hospital, round=round_number, units=release.records)
    update = ArrayRecord({name: Array(value) for name, value in release.arrays.items()})
    return Message(RecordDict({"reply": record, "release": update}), reply_to=message)


@app.query("advertise")
def advertise(message: Message, context: Context) -> Message:
    """Answer with this round's public keys, signed."""

    def answer(summand: Summand, order: ConfigRecord) -> ConfigRecord:
        return ConfigRecord({"card": summand.advertise().to_json()})

    return _phase(message, context, answer)


@app.query("share")
def share(message: Message, context: Context) -> Message:
    """Answer with encrypted shares of this round's secrets, one letter for every peer."""

    def answer(summand: Summand, order: ConfigRecord) -> ConfigRecord:
        letters = summand.share(summand.peers(_texts(order, "cards")))
        return ConfigRecord({"to": list(letters), "letters": list(letters.values())})

    return _phase(message, context, answer)


@app.train("mask")
def mask(message: Message, context: Context) -> Message:
    """Answer with the release under masks; charged before it leaves, and only for peers that were verified."""
    here, partition = _site(context)
    round_number, text, weights = _broadcast(message)
    order = cast(ConfigRecord, message.content["order"])
    try:
        digest = broadcast_digest(round_number, text, weights)
        if not here.settings.experiment.training.secure_sum:
            raise RefusalError("this federation has no secure sum")
        summand = Summand(party(_settings(context), here), round_number, digest)
        peers, sharers = summand.peers(_texts(order, "cards")), _texts(order, "sharers")
        summand.admit(peers, sharers)
        values, layout = released_vector(here, round_number, ModelSpec.from_json(text), weights, digest)
        masked = summand.mask(peers, sharers, values)
    except (RefusalError, ValueError) as refusal:
        record = _reply(partition, here.plan.hospital, round=round_number, declined=str(refusal))
        return Message(RecordDict({"reply": record}), reply_to=message)
    said = {"layout": layout, "exponent": summand.exponent(peers), "seed": summand.commitment(peers)}
    record = _reply(partition, here.plan.hospital, round=round_number, **said)
    content = RecordDict({"reply": record, "masked": ArrayRecord({"masked": Array(masked)})})
    return Message(content, reply_to=message)


@app.query("agree")
def agree(message: Message, context: Context) -> Message:
    """Answer with the signature under the list of survivors."""

    def answer(summand: Summand, order: ConfigRecord) -> ConfigRecord:
        peers = summand.peers(_texts(order, "cards"))
        signature = summand.agree(peers, _texts(order, "sharers"), _texts(order, "survivors"))
        return ConfigRecord({"signature": signature})

    return _phase(message, context, answer)


@app.query("unmask")
def unmask(message: Message, context: Context) -> Message:
    """Answer with the shares that open the sum over the survivors, and nothing else."""

    def answer(summand: Summand, order: ConfigRecord) -> ConfigRecord:
        peers, sharers = summand.peers(_texts(order, "cards")), _texts(order, "sharers")
        signatures = dict(zip(_texts(order, "signers"), _pieces(order, "signatures"), strict=True))
        letters = dict(zip(sharers, _pieces(order, "letters"), strict=True))
        shares = summand.unmask(peers, sharers, _texts(order, "survivors"), signatures, letters)
        return ConfigRecord({"of": list(shares), "shares": list(shares.values())})

    return _phase(message, context, answer)


def _phase(message: Message, context: Context, answer: Callable[[Summand, ConfigRecord], ConfigRecord]) -> Message:
    """Answer a phase without weights, or decline it with the reason."""
    here, partition = _site(context)
    order = cast(ConfigRecord, message.content["order"])
    round_number = int(cast(int, order["round"]))
    record = _reply(partition, here.plan.hospital, round=round_number)
    try:
        if not here.settings.experiment.training.secure_sum:
            raise RefusalError("this federation has no secure sum")
        record.update(answer(Summand(party(_settings(context), here), round_number, str(order["broadcast"])), order))
    except (RefusalError, ValueError) as refusal:
        record["declined"] = str(refusal)
    return Message(RecordDict({"reply": record}), reply_to=message)


def _broadcast(message: Message) -> tuple[int, str, dict[str, NDArray[np.float32]]]:
    """Return the round, the model's specification as JSON, and the weights that were sent."""
    order = cast(ConfigRecord, message.content["order"])
    arrays = cast(ArrayRecord, message.content["weights"])
    weights = {name: array.numpy() for name, array in arrays.items()}
    return int(cast(int, order["round"])), str(order["spec"]), weights


def _texts(order: ConfigRecord, key: str) -> list[str]:
    return [str(text) for text in cast("list[str]", order[key])]


def _pieces(order: ConfigRecord, key: str) -> list[bytes]:
    return list(cast("list[bytes]", order[key]))
