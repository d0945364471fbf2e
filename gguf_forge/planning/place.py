"""Where the files of a request go, and how they are split."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from gguf_forge.errors import printable
from gguf_forge.general import fill_template
from gguf_forge.planning.splits import Split
from gguf_forge.request import Request, names_folder
from gguf_forge.storage.paths import is_folder
from gguf_forge.wording import log_of

log = log_of(__name__)


@dataclass(frozen=True)
class OutputPlace:
    """Where files go.

    Attributes:
        target: A folder, or the name of a file that may have `{ftype}` in it.
        is_folder: Whether it is a folder, one that is there or one that will be made.
        split: Whether and how each file is split.
        prefix: What is put before the name of a file that the user gave.

    Example:
        >>> OutputPlace(Path("models"), is_folder=True).path("Qwen3-0.6B-Q4_K_M.gguf", "Q4_K_M").as_posix()
        'models/Qwen3-0.6B-Q4_K_M.gguf'
        >>> OutputPlace(Path("m-{ftype}.gguf"), prefix="mmproj-").path("", "F16").as_posix()
        'mmproj-m-f16.gguf'
    """

    target: Path
    is_folder: bool = False
    split: Split = field(default_factory=Split)
    prefix: str = ""

    @classmethod
    def of(cls, request: Request, folder: Path, n_files: int, split: Split) -> OutputPlace:
        """The place that a request names.

        Args:
            request: What is asked for.
            folder: Where its relative paths begin, and where the files go if it names no place.
            n_files: How many files are made.
            split: Whether and how each is split.
        """
        target = folder if request.out is None else folder / request.out
        is_one = names_folder(request.out, n_files) or is_folder(target)
        if not is_one and target.suffix.lower() != ".gguf":
            hint = f"-o {shlex.quote(printable(f'{request.out}/'))} makes a folder"
            log.warning("%s: the output is a file whose name does not end in .gguf; %s", target, hint)
        return cls(target, is_one, split)

    def path(self, usual_name: str, type_name: str) -> Path:
        """The path of a file.

        Args:
            usual_name: Its name in a folder.
            type_name: Of its file type.

        Raises:
            UsageError: the name has a word in braces that is not replaced.
        """
        if self.is_folder:
            return self.target / usual_name
        return self.target.with_name(self.prefix + fill_template(self.target.name, type_name))
