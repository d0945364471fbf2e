"""The interface of every kind of source that files are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from gguf_forge.gguf_file.tensor_info import TensorInfo
from gguf_forge.gguf_file.values import Metadata
from gguf_forge.planning.file_plan import FilePlan, TensorChoice
from gguf_forge.planning.splits import Split
from gguf_forge.recipe import Options
from gguf_forge.request import Request
from gguf_forge.storage.source import Source
from gguf_forge.tensors.expression import TensorExpr
from gguf_forge.types.tensor_type import TensorType


class TensorSource(NamedTuple):
    """A file that holds tensors: where in it their data begins, and the offset and size of each."""

    source: Source
    head: int
    tensors: Sequence[tuple[int, int]]


@dataclass(frozen=True)
class FileContent:
    """What one file of a model holds.

    Attributes:
        metadata: Its keys, in order.
        tensors: In order: what each is, and where its values come from.
        notes: What a user should know about it, such as options that have no effect.
    """

    metadata: Metadata
    tensors: tuple[TensorChoice, ...]
    notes: tuple[str, ...]


class OpenModel(Protocol):
    """A model that is open. The results of its methods are valid only while it is."""

    @property
    def name(self) -> str:
        """The name of its folder or file."""

    @property
    def sources(self) -> tuple[TensorSource, ...]:
        """The files that hold its tensors."""

    def parts(self) -> Mapping[str, str]:
        """The parts that become files of their own, in order, and what each is; empty if it is one file."""

    def tensors(self, request: Request | None = None) -> Mapping[str, TensorExpr]:
        """Its tensors, by their names in a GGUF file. Neither keys nor vocabulary are read.

        Args:
            request: Names the part of the model; None for the language model.
        """

    def infos(self) -> tuple[tuple[TensorInfo, ...], str]:
        """Its tensors as those of a GGUF file, with the types that they have now, and the name of its architecture."""

    def files(
        self, request: Request, options: Options, split: Split, folder: Path, *, only_planned: bool = False
    ) -> tuple[FilePlan, ...]:
        """The files that are asked for: every tensor, type, size and offset. Reads no weight.

        Args:
            request: What is asked for; its source is this model.
            options: The options that change the mixes of the file types.
            split: Whether and how the files are split.
            folder: Where relative paths of the request begin.
            only_planned: An importance matrix that is missing is a warning and no error, and so are tensors of a GGUF
                file that are quantized already: as with llama-quantize's --dry-run.

        Raises:
            ForgeError: what was wrong, where, and what to do.
        """

    def content(self, request: Request, options: Options, base: TensorType | None) -> FileContent:
        """The content of a file of the options' file type, even one of a type that could not be made from this model.

        Args:
            request: Facts that the user gives about the model; paths begin in the current folder.
            options: The file type, and the options that change its mix.
            base: The float type of the file that is quantized; None for that of the model.

        Raises:
            UsageError: a base type for a model that has its own.
            ForgeError: what else was wrong, where, and what to do.
        """

    def check_unchanged(self) -> None:
        """Raises InputError if a file was written to or replaced since it was opened."""

    def close(self) -> None:
        """Closes its files."""
