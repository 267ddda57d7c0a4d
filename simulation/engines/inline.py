"""Hospitals in this process, one after the other: for tests, debugging, and small runs."""

from collections import deque
from collections.abc import Iterable
from typing import final

from flwr.app import Context, Message, RecordDict

from simulation.engines.answering import HOSPITALS_APP, answer, load_app


@final
class InlineDispatcher:
    """Runs one hospital's app per look, in the order of the messages."""

    def __init__(self, app: str = HOSPITALS_APP) -> None:
        self._app = app
        self._waiting: deque[tuple[Message, Context]] = deque()

    def submit(self, messages: Iterable[tuple[Message, Context]]) -> None:
        """Queue messages."""
        self._waiting.extend(messages)

    def collect(self) -> list[Message]:
        """Run the next hospital and return its reply."""
        if not self._waiting:
            return []
        message, context = self._waiting.popleft()
        content = RecordDict(dict(message.content))  # a hospital's changes must not reach its neighbours
        metadata = message.metadata
        own = Message(content, metadata.dst_node_id, metadata.message_type, group_id=metadata.group_id)
        own.metadata.__dict__["_message_id"] = metadata.message_id
        return [answer(load_app(self._app), own, context)]
