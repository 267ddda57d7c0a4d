"""The hospital's Flower app: it introduces itself, and it answers a round with a release or with its reason not to."""

import os
from typing import cast

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.broadcast import broadcast_digest
from clients.site import RefusalError, Site, site
from tasks.models import ModelSpec

SETTINGS_VARIABLE = "FEDWARD_SITE_SETTINGS"

app = ClientApp()


def _site(context: Context) -> tuple[Site, int]:
    path = str(context.node_config.get("site-settings") or os.environ[SETTINGS_VARIABLE])
    partition = int(context.node_config["partition-id"])
    return site(path, partition), partition


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
        noise_multiplier=plan.noise_multiplier,
        self_check=here.introduce(),
    )
    return Message(RecordDict({"reply": record}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer a round with a release, or decline with the reason."""
    here, partition = _site(context)
    order = cast(ConfigRecord, message.content["order"])
    arrays = cast(ArrayRecord, message.content["weights"])
    round_number = int(cast(int, order["round"]))
    text = str(order["spec"])
    weights = {name: array.numpy() for name, array in arrays.items()}
    try:
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
