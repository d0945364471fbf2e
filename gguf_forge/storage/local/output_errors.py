"""What the system says about an output, as an error that helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EMFILE, ENOSPC
from pathlib import Path

from gguf_forge.errors import OutputError
from gguf_forge.storage.local.source_file import TOO_MANY_FILES

MORE_ROOM = "free some room, or choose a folder on another disk"
_HINTS = {ENOSPC: MORE_ROOM, EDQUOT: MORE_ROOM, EMFILE: TOO_MANY_FILES}


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turns an OSError about the output `path` into an OutputError."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "nothing was changed under this name")
        raise OutputError(error.strerror or str(error), file=path, hint=hint) from None
