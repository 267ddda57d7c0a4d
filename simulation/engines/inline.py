"""Hospitals in this process, one after the other: for tests, debugging, and small runs."""

from collections import deque
from typing import final

from flwr.app import Context, Message, RecordDict

from configs import FedwardError
from simulation.engines.grid import failed


@final
class InlineDispatcher:
    """Runs one hospital's app per look, in the order of the messages."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Message, Context]] = deque()

    def submit(self, message: Message, context: Context) -> None:
        """Queue a message."""
        self._waiting.append((message, context))

    def collect(self) -> list[Message]:
        """Run the next hospital and return its reply."""
        from clients.app import app

        if not self._waiting:
            return []
        message, context = self._waiting.popleft()
        content = RecordDict(dict(message.content))  # a hospital's changes must not reach its neighbours
        metadata = message.metadata
        own = Message(content, metadata.dst_node_id, metadata.message_type, group_id=metadata.group_id)
        own.metadata.__dict__["_message_id"] = metadata.message_id
        try:
            return [app(own, context)]
        except FedwardError as error:
            return [failed(message, str(error))]
        except Exception as error:
            return [failed(message, f"{type(error).__name__}: {error}")]
