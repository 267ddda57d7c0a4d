"""Flower's `Grid` over hospitals on this machine or cluster: ours to deliver messages, Flower's in shape."""

import itertools
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Protocol, final

from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
SERVER_NODE = 1
FIRST_NODE = 2


class Dispatcher(Protocol):
    """Hands messages to hospitals and collects what they answer."""

    def submit(self, messages: Iterable[tuple[Message, Context]]) -> None:
        """Take messages, each for the hospital of its context."""
        ...

    def collect(self) -> list[Message]:
        """Return the replies that are there, waiting a little for the first; error replies included."""
        ...


@final
class LocalGrid(Grid):
    """A Grid whose nodes are simulated hospitals; who runs them is the dispatcher's matter."""

    def __init__(self, dispatcher: Dispatcher, hospitals: int, site_settings: Path) -> None:
        # Message() reads these; a new Flower that moves them fails here, loudly, before any round.
        TaskIdentity.run_id = RUN_ID
        TaskIdentity.node_id = SERVER_NODE
        TaskIdentity.task_id = 1
        self._dispatcher = dispatcher
        self._run = Run.create_empty(run_id=RUN_ID)
        self._numbers = itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._contexts = {
            FIRST_NODE + i: Context(
                run_id=RUN_ID,
                node_id=FIRST_NODE + i,
                node_config=UserConfig(
                    {"partition-id": i, "num-partitions": hospitals, "site-settings": str(site_settings)}
                ),
                state=RecordDict(),
                run_config=UserConfig(),
            )
            for i in range(hospitals)
        }

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message (Flower's older spelling of `Message(...)`)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the hospitals' node ids."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Number the messages and hand them to the dispatcher; returns their ids in order."""
        pushed = list(messages)
        for message in pushed:
            message.metadata.__dict__["_message_id"] = f"m{next(self._numbers)}"
        self._dispatcher.submit((message, self._contexts[message.metadata.dst_node_id]) for message in pushed)
        return [message.metadata.message_id for message in pushed]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that have come."""
        for reply in self._dispatcher.collect():
            self._replies[reply.metadata.reply_to_message_id] = reply
        # Few replies are there at a time and thousands may be pending: a set, as a dictionary's keys, is not copied.
        asked = message_ids if isinstance(message_ids, Set) else set(message_ids)
        return [self._replies.pop(i) for i in list(self._replies) if i in asked]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and wait for all replies, or for `timeout` seconds."""
        from server.exchange import exchange

        limit = float("inf") if timeout is None else timeout
        return list(exchange(self, messages, retries=0, timeout=limit, lost=lambda *_: None))
