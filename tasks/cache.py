"""Where derived files are kept, and how they get there: whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from configs.errors import InputError

VARIABLE = "FEDWARD_CACHE"


def cache_folder() -> Path:
    """Return the folder for derived files: FEDWARD_CACHE, or ``~/.cache/fedward``; it is created.

    Raises:
        InputError: the folder cannot be created.
    """
    given = os.environ.get(VARIABLE)
    folder = Path(given).expanduser() if given else Path.home() / ".cache" / "fedward"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{VARIABLE}: cannot create the cache folder {folder} ({error.strerror}); set it to a writable folder."
        ) from error
    return folder


@contextmanager
def appearing(target: Path) -> Generator[Path]:
    """Give a temporary name beside `target`, and rename what was written under it when the block ends well.

    The caller writes one file or one folder. Two processes may do so for the same target at once: each writes
    its own, and a reader meets no target or a whole one. Whatever ends the block early, nothing stays behind.

    Raises:
        InputError: the disk is full or the folder not writable.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        yield draft
        _rename(draft, target)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error}); free some space or choose another folder."
        ) from error
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)


def _rename(draft: Path, target: Path) -> None:
    try:
        draft.replace(target)
    except OSError:
        # A folder cannot replace a folder that has content: another process was first, with the same content.
        if not (draft.is_dir() and target.is_dir()):
            raise
