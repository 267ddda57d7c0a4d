"""Flower's `Grid` over hospitals on this machine or cluster: ours to deliver messages, Flower's in shape."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, final

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
SERVER_NODE = 1
FIRST_NODE = 2
HOSPITAL_FAILED = 1


class Dispatcher(Protocol):
    """Hands messages to hospitals and collects what they answer."""

    def submit(self, message: Message, context: Context) -> None:
        """Take one message for the hospital of this context."""
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
        identifiers: list[str] = []
        for message in messages:
            identifier = f"m{next(self._numbers)}"
            message.metadata.__dict__["_message_id"] = identifier
            self._dispatcher.submit(message, self._contexts[message.metadata.dst_node_id])
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to these messages that have come."""
        for reply in self._dispatcher.collect():
            self._replies[reply.metadata.reply_to_message_id] = reply
        wanted = [i for i in message_ids if i in self._replies]
        return [self._replies.pop(i) for i in wanted]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and wait for all replies, or for `timeout` seconds."""
        from server.exchange import exchange

        limit = float("inf") if timeout is None else timeout
        return list(exchange(self, messages, retries=0, timeout=limit, lost=lambda *_: None))


def failed(message: Message, reason: str) -> Message:
    """Return the error reply to a message."""
    return Message(Error(code=HOSPITAL_FAILED, reason=reason), reply_to=message)
