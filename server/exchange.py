"""Send messages and take the replies as they come, sending again what got lost."""

import time
from collections.abc import Callable, Iterable, Iterator

from flwr.app import Message
from flwr.serverapp import Grid

IDLE = 0.02  # seconds between two empty looks


def exchange(
    grid: Grid,
    messages: Iterable[Message],
    *,
    retries: int,
    timeout: float,
    lost: Callable[[int, str, bool], None],
) -> Iterator[Message]:
    """Yield the replies with content, as they come.

    An error reply (a dead worker, an exception in a hospital) is answered by sending the same content again, at
    most `retries` times per hospital; the hospital then makes the very same release, at no charge.

    Args:
        grid: carries the messages.
        messages: at most one per node.
        retries: further tries per message.
        timeout: seconds after which silent hospitals are given up for this round.
        lost: called with (node id, reason, whether it is tried again) for every error and every silence.
    """
    sent = list(messages)
    pending = dict(zip(grid.push_messages(sent), [(m, retries) for m in sent], strict=True))
    deadline = time.monotonic() + timeout
    while pending and time.monotonic() < deadline:
        looked = time.monotonic()
        replies = list(grid.pull_messages(pending.keys()))
        if not replies:  # a grid that waited for them itself is asked again at once
            time.sleep(max(0.0, IDLE - (time.monotonic() - looked)))
        for reply in replies:
            found = pending.pop(reply.metadata.reply_to_message_id, None)
            if found is None:
                continue
            message, tries = found
            if not reply.has_error():
                yield reply
                continue
            node = message.metadata.dst_node_id
            lost(node, str(reply.error.reason or f"error {reply.error.code}"), tries > 0)
            if tries > 0:
                again = _copy(message)
                (identifier,) = grid.push_messages([again])
                pending[identifier] = (again, tries - 1)
    for message, _ in pending.values():
        lost(message.metadata.dst_node_id, f"no reply within {timeout:g} s", False)


def _copy(message: Message) -> Message:
    metadata = message.metadata
    return Message(
        message.content,
        dst_node_id=metadata.dst_node_id,
        message_type=metadata.message_type,
        group_id=metadata.group_id,
    )
