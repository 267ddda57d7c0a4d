"""A hospital's app for tests: it answers with its weights and its process, and one hospital may kill its worker."""

import os
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    hospital, order = int(context.node_config["partition-id"]), message.content["order"]
    log = Path(str(context.node_config["site-settings"])) / f"{hospital}.log"
    with log.open("a") as file:
        file.write(f"{order['round']}\n")
    if hospital in order["deadly"]:
        os._exit(1)
    weights = message.content["weights"]["w"].numpy()
    weights += hospital  # one's own: no neighbour may see it
    reply = ConfigRecord({"hospital": hospital, "process": os.getpid(), "units": 10 + hospital})
    release = ArrayRecord({"w": Array(weights.astype(np.float64))})
    return Message(RecordDict({"reply": reply, "release": release}), reply_to=message)
