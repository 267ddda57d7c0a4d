"""The errors a person meets: one sentence each, and the exit code that goes with it."""

from typing import final


class FedwardError(Exception):
    """An error with one sentence for people and an exit code for scripts."""

    exit_code: int = 1


@final
class InputError(FedwardError):
    """Bad input: the sentence names the field or file, what was wrong, and what to do (exit code 2)."""

    exit_code = 2


@final
class RunStoppedError(FedwardError):
    """A run that stopped for a stated reason: budget exhausted, quorum lost, bound beaten (exit code 3)."""

    exit_code = 3
